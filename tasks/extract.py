"""Extract: the phrases of a cleaned report that name a target of the taxonomy."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from storage.records import Phrase
from storage.rejects import Reject
from storage.shards import table_from_rows
from tasks.answers import checked_phrase, require_as_many
from tasks.clean import SECTIONS
from tasks.engines.protocols import Extractor, Failure
from tasks.step import StepOutput
from taxonomy.targets import Taxonomy

Row = dict[str, Any]


def extract_phrases(reports: pa.Table, extractor: Extractor, taxonomy: Taxonomy) -> StepOutput:
    """Find the phrases of every section; one row out per phrase, records counted as reports.

    A report with a section that the engine could not process is rejected as a whole: that reject
    has no section. A proposal that the engine rejects, or that cannot be a phrase of its text, has
    the section it was made in.

    Raises:
        EngineAnswerError: if the engine gives more answers than texts, or fewer.
    """
    rows = reports.select(["dataset", "split", "study_id", *SECTIONS]).to_pylist()
    sections = [(row, section) for row in rows for section in SECTIONS if row[section]]
    found = extractor.extract([row[section] for row, section in sections])
    require_as_many(extractor, found, sections, "texts")
    failed: dict[str, Reject] = {}
    for (row, _), answer in zip(sections, found, strict=True):
        if isinstance(answer, Failure):
            failed[row["study_id"]] = _reject(row, None, answer)

    phrases: list[Row] = []
    discarded: list[Reject] = []
    for (row, section), answer in zip(sections, found, strict=True):
        if isinstance(answer, Failure) or row["study_id"] in failed:
            continue
        for proposal in answer:
            item = _checked(proposal, row[section], taxonomy)
            if isinstance(item, Failure):
                discarded.append(_reject(row, section, item))
            else:
                phrases.append(_row(row, section, item, taxonomy))
    table = table_from_rows("phrases", phrases)
    through = sum(row["study_id"] not in failed for row in rows)
    return StepOutput(table, list(failed.values()), len(rows), through, discarded)


def _checked(proposal: Phrase | Failure, text: str, taxonomy: Taxonomy) -> Phrase | Failure:
    return proposal if isinstance(proposal, Failure) else checked_phrase(proposal, text, taxonomy)


def _row(report: Row, section: str, phrase: Phrase, taxonomy: Taxonomy) -> Row:
    return {
        "dataset": report["dataset"],
        "split": report["split"],
        "study_id": report["study_id"],
        "section": section,
        "phrase": report[section][phrase.start : phrase.end],
        "category": taxonomy[phrase.target].category,
    } | phrase.to_row()


def _reject(report: Row, section: str | None, why: Failure) -> Reject:
    record = section or "report"
    return Reject(report["study_id"], record, why.reason, why.detail, section=section)
