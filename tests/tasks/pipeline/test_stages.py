"""The table of stages: a stage more is an entry more, a step and the schema of what it writes."""

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa
import pytest

from storage.schemas import SCHEMAS
from storage.shards import Part, read_shard
from tasks.pipeline import stages
from tasks.pipeline.run_summary import stored_summaries
from tasks.pipeline.runner import ShardResult, run_stage
from tasks.pipeline.schedule import run_shards
from tasks.pipeline.settings import make_settings
from tasks.pipeline.stages import POSITIVES, STAGES, STUDIES, RunContext, StageEntry, pipeline
from tasks.step import StepOutput

COUNTS = pa.schema([("study_id", pa.string()), ("positives", pa.int64())])


def _count_positives(_: RunContext, __: Part, studies: pa.Table, positives: pa.Table) -> StepOutput:
    found = positives["study_id"].to_pylist()
    rows = [{"study_id": s, "positives": found.count(s)} for s in studies["study_id"].to_pylist()]
    return StepOutput(pa.Table.from_pylist(rows, schema=COUNTS), [], len(rows), len(rows))


COUNT = StageEntry(
    name="count", table="counts", unit="report", inputs=(STUDIES, POSITIVES), step=_count_positives
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "ecgen-radiology"
    folder.mkdir(parents=True)
    for n in range(4):
        (folder / f"{n}.xml").write_text(
            "<eCitation><Abstract><AbstractText Label='FINDINGS'>Small right pleural effusion. "
            "No pneumothorax.</AbstractText><AbstractText Label='IMPRESSION'>Effusion."
            "</AbstractText></Abstract></eCitation>"
        )
    return folder.parent


def test_a_stage_that_is_added_to_the_table_runs_and_shows_in_the_summary(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "STAGES", (*STAGES, COUNT))
    monkeypatch.setitem(SCHEMAS, "counts", COUNTS)
    given = {"source": str(source), "store": str(tmp_path / "store"), "shard_size": 2}
    plan = pipeline(make_settings({"dataset": "openi", **given}))

    def submit(stage: str, part: Part, upstream: Mapping[str, ShardResult]) -> Future[ShardResult]:
        future = Future[ShardResult]()
        future.set_result(run_stage(plan.store, plan.stages[stage], part, upstream))
        return future

    results = list(run_shards([*plan.stages.values()], plan.parts, submit, cpu_shards=1))
    made = [r.manifest.outputs["counts"] for r in results if r.manifest.stage == "count"]
    counts = pa.concat_tables(read_shard(plan.store, file) for file in made)
    assert sorted(counts["positives"].to_pylist()) == [2, 2, 2, 2]

    [summary] = stored_summaries(plan.store)
    assert {stage.stage for stage in summary.stages} == {*(entry.name for entry in STAGES), "count"}


def test_the_table_names_each_stage_once_and_reads_only_what_is_made_before() -> None:
    made: set[tuple[str, str]] = set()
    for entry in STAGES:
        assert entry.table in SCHEMAS
        assert (entry.name, entry.table) not in made
        assert set(entry.inputs) <= made
        made |= {(entry.name, entry.table), (entry.name, "rejects")}
