"""Tables on screens of any width."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

from flows.cli.fitting import print_table
from flows.cli.tables import (
    audit_table,
    grounding_table,
    label_audit_table,
    model_table,
    phrase_audit_table,
    rows_table,
    summary_table,
    tag_table,
)
from storage.records import MaskKey, SiteKey
from tasks.audit.grounding import GroundingAudit, GroundingScore
from tasks.audit.scores import Audit, ReportScores, Score
from tasks.audit.shipped_labels import LabelAudit
from tasks.pipeline.run_summary import DatasetSummary, StageSummary

_TARGETS = {
    "calcified mediastinal lymph node": Score(1234, 1300, 1177),
    "scar": Score(3, 4, 2),
    "no-such-target-but-a-very-long-word": Score(10, 10, 10),
}
_HALF = ReportScores(1926, 1900, _TARGETS)
_OVERLAP = GroundingScore(123_456, 99_999, 1_000, 88_888, 7_777, 7_000, 8_000, 9e4, 1e5)
_STAGES = tuple(
    StageSummary(stage, "record", 1_234_567, 1_234_000, 1_200_000, seconds=12345.6, shards=999)
    for stage in ("ingest", "clean", "assemble")
)
_USAGE = {
    step: {"units": 1_234_567, "tokens_in": 9_876_543_210, "busy_us": 8_000_000}
    for step in ("clean", "extract", "filter")
}
_TAG = {
    "phrase": "a phrase of some words",
    "target": "lung nodule",
    "grounding": "mask",
    "mask": MaskKey(SiteKey("lung nodule", "left", ())).to_row() | {"voxel_count": 3955},
}

TABLES = {
    "audit": audit_table(Audit(_HALF, _HALF), "a reference"),
    "labels": label_audit_table(
        LabelAudit(_HALF, dict.fromkeys(_TARGETS, 1234), dict.fromkeys(_TARGETS, 99), {}),
        "chexpert",
    ),
    "phrases": phrase_audit_table(_HALF, "sentences", "share left as written"),
    "grounding": grounding_table(GroundingAudit(dict.fromkeys(_TARGETS, _OVERLAP)), "boxes"),
    "status": summary_table(DatasetSummary("openi", _STAGES)),
    "plan": model_table("requests", _USAGE),
    "show": tag_table([_TAG], {MaskKey(SiteKey("lung nodule", "left", ())): None}),
    "sql": rows_table(
        ["id", "text", "n", "score", "more"], [("CXR1", "words " * 40, 3955, 0.123456789, 10**15)]
    ),
}


def _printed(table: Table, width: int) -> str:
    out = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    print_table(table, out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def _figures(table: Table) -> list[str]:
    cells = [str(cell) for column in table.columns for cell in column.cells]
    return [figure for cell in cells for figure in re.findall(r"\d[\d.,/]*", cell)]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 100_000])
@pytest.mark.parametrize("name", TABLES)
def test_no_figure_is_cut(name: str, width: int) -> None:
    printed = _printed(TABLES[name], width)
    assert "…" not in printed
    for figure in _figures(TABLES[name]):
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d.,/])", printed), figure
    assert max(map(len, printed.splitlines())) <= width


def test_what_does_not_fit_goes_into_a_block_below() -> None:
    table = rows_table(["key", *"abcdef"], [("first", *[123456789] * 6), ("second", *[1] * 6)])
    assert _printed(table, 120).count("first") == 1
    narrow = _printed(table, 50)
    assert narrow.count("first") == narrow.count("second") == 2
    assert narrow.count("123456789") == 6


def test_a_text_is_wrapped_and_not_lost() -> None:
    text = "word " * 60 + "/a/path/that/is/longer/than/the/screen/" + "x" * 60
    printed = _printed(rows_table(["id", "text"], [("CXR1", text)]), 60)
    assert printed.count("word") == 60
    assert printed.count("x") == 60 + 1  # of the header, `text`
