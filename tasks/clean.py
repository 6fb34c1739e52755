"""Clean: drop from each report what one image cannot show (VividMed, section on data synthesis).

A report is rejected when a section that the policy wants is missing, or when nothing of it is
left, as the paper's post-filter does.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from storage.datasets.selection import RequiredSections
from storage.rejects import Reject
from storage.shards import table_from_rows
from tasks.answers import require_as_many
from tasks.engines.protocols import CleanedText, Cleaner, Failure
from tasks.step import StepOutput

SECTIONS = ("findings", "impression")


def clean_reports(studies: pa.Table, cleaner: Cleaner, require: RequiredSections) -> StepOutput:
    """Clean the sections of every study; one row out per report kept.

    Raises:
        EngineAnswerError: if the engine gives more answers than texts, or fewer.
    """
    reports = studies.select(["dataset", "split", "study_id", *SECTIONS]).to_pylist()
    given = [(i, s) for i, report in enumerate(reports) for s in SECTIONS if report[s]]
    cleaned = cleaner.clean([reports[i][section] for i, section in given])
    require_as_many(cleaner, cleaned, given, "texts")
    by_report: list[dict[str, CleanedText | Failure]] = [{} for _ in reports]
    for (i, section), text in zip(given, cleaned, strict=True):
        by_report[i][section] = text

    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for report, answers in zip(reports, by_report, strict=True):
        sections = {s: text for s, text in answers.items() if isinstance(text, CleanedText)}
        failures = [failure for failure in answers.values() if isinstance(failure, Failure)]
        fault = failures[0] if failures else _fault(report, sections, require)
        if fault is None:
            rows.append(_row(report, sections))
        else:
            rejects.append(Reject(report["study_id"], "report", fault.reason, fault.detail))
    return StepOutput(table_from_rows("clean_reports", rows), rejects, len(reports), len(rows))


def _fault(
    report: dict[str, Any], sections: dict[str, CleanedText], require: RequiredSections
) -> Failure | None:
    missing = [s for s in SECTIONS if not report[s]]
    emptied = [s for s in SECTIONS if s in sections and not sections[s].text]
    if len(missing) == len(SECTIONS):
        return Failure("no_text", "the report has neither findings nor impression")
    if require == "both" and missing:
        return Failure(f"no_{missing[0]}", f"the report has no {missing[0]} section")
    if require == "both" and emptied:
        detail = f"cleaning left nothing of the {emptied[0]} section"
        return Failure(f"{emptied[0]}_emptied", detail)
    if len(missing) + len(emptied) == len(SECTIONS):
        return Failure("report_emptied", "cleaning left nothing of the report")
    return None


def _row(report: dict[str, Any], sections: dict[str, CleanedText]) -> dict[str, Any]:
    texts = {s: sections[s].text or None if s in sections else None for s in SECTIONS}
    removed = [passage for text in sections.values() for passage in text.removed]
    by_rules = [sentence for text in sections.values() for sentence in text.by_rules]
    edited = any(texts[s] != report[s] for s in sections)
    key = {name: report[name] for name in ("dataset", "split", "study_id")}
    status = "edited" if edited else "unchanged"
    return key | texts | {"removed": removed, "status": status, "by_rules": by_rules}
