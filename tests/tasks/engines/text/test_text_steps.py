"""The three text steps on tables, with the embedded engines."""

from typing import Any

import pyarrow as pa
import pytest

from storage.datasets.selection import RequiredSections
from storage.shards import table_from_rows
from tasks.annotate import annotate
from tasks.clean import clean_reports
from tasks.pipeline.engine_choice import choose_engines
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import load_taxonomy

ENGINES = choose_engines(BuildSettings(dataset="openi"), load_taxonomy())


def _studies(*sections: tuple[str | None, str | None]) -> pa.Table:
    rows = [
        {
            "dataset": "openi",
            "split": "train",
            "study_id": f"s{i}",
            "findings": findings,
            "impression": impression,
        }
        for i, (findings, impression) in enumerate(sections)
    ]
    return table_from_rows("studies", rows)


def _reasons(table: Any) -> list[tuple[str, str]]:
    return [(reject.study_id, reject.reason) for reject in table.rejects]


CASES = (
    ("Heart size is normal.", "No acute disease."),
    (None, "No acute disease."),
    ("Heart size is normal.", ""),
    (None, None),
    ("Compared to XXXX.", "Cardiomegaly."),
    ("Compared to XXXX.", "XXXX."),
)


@pytest.mark.parametrize(
    ("require", "kept", "reasons"),
    [
        (
            "both",
            ["s0"],
            ["no_findings", "no_impression", "no_text", "findings_emptied", "findings_emptied"],
        ),
        ("any", ["s0", "s1", "s2", "s4"], ["no_text", "report_emptied"]),
    ],
)
def test_reports_without_the_sections_wanted_are_rejected(
    require: RequiredSections, kept: list[str], reasons: list[str]
) -> None:
    output = clean_reports(_studies(*CASES), ENGINES.cleaner, require)
    assert output.rows.column("study_id").to_pylist() == kept
    assert [reason for _, reason in _reasons(output)] == reasons
    assert output.rows_in == output.rows_out + len(output.rejects) == len(CASES)


def test_what_cleaning_took_out_is_kept_beside_the_text() -> None:
    studies = _studies(("Stable cardiomegaly. PA and lateral views.", "No pneumothorax."))
    [row] = clean_reports(studies, ENGINES.cleaner, "both").rows.to_pylist()
    assert row["findings"] == "Cardiomegaly."
    assert row["status"] == "edited"
    assert row["removed"]
    untouched = _studies(("Heart size is normal.", "No pneumothorax."))
    [row] = clean_reports(untouched, ENGINES.cleaner, "both").rows.to_pylist()
    assert (row["status"], row["removed"]) == ("unchanged", [])


@pytest.mark.parametrize(
    ("positive", "kept", "reasons"),
    [
        (("present",), ["effusion"], {"absent", "possible"}),
        (("present", "possible"), ["effusion", "atelectasis"], {"absent"}),
    ],
)
def test_phrases_are_kept_or_rejected_by_their_assertion(
    positive: Any, kept: list[str], reasons: set[str]
) -> None:
    studies = _studies(("Small effusion. Possible atelectasis.", "No pneumothorax."))
    output = annotate(studies, ENGINES, load_taxonomy(), require="both", positive=positive).filter
    assert output.rows.column("phrase").to_pylist() == kept
    assert {reason for _, reason in _reasons(output)} == reasons
    assert output.rows_in == output.rows_out + len(output.rejects) == 3
    [pneumothorax] = [r for r in output.rejects if r.reason == "absent"]
    assert (pneumothorax.section, pneumothorax.start) == ("impression", 3)
    assert pneumothorax.detail == "pneumothorax is stated as absent: “pneumothorax”"
