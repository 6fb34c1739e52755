"""A data set built anew in other shards, stopped on the way and finished later."""

from collections.abc import Mapping
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

import pytest

from storage.plans import read_holdings, write_plan
from storage.shards import Part
from storage.store import Store, StoreError
from storage.sweeping import sweep
from storage.tables import open_tables
from tasks.pipeline.runner import ShardResult, run_stage
from tasks.pipeline.schedule import run_shards
from tasks.pipeline.settings import make_settings
from tasks.pipeline.stages import Pipeline, pipeline

REPORTS = 4


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "ecgen-radiology"
    folder.mkdir(parents=True)
    for n in range(REPORTS):
        (folder / f"{n}.xml").write_text(
            "<eCitation><Abstract><AbstractText Label='FINDINGS'>Small right pleural effusion."
            "</AbstractText><AbstractText Label='IMPRESSION'>Effusion."
            "</AbstractText></Abstract></eCitation>"
        )
    return folder.parent


def _plan(source: Path, shard_size: int) -> Pipeline:
    given = {"source": str(source), "store": str(source.parent / "store")}
    return pipeline(make_settings({"dataset": "openi", "shard_size": shard_size, **given}))


def _run(plan: Pipeline, shards: int | None = None) -> None:
    """Run all shards, or the first ones, as a run that is killed then."""

    def submit(stage: str, part: Part, upstream: Mapping[str, ShardResult]) -> Future[ShardResult]:
        future = Future[ShardResult]()
        future.set_result(run_stage(plan.store, plan.stages[stage], part, upstream))
        return future

    write_plan(plan.store, plan.plan)
    list(islice(run_shards([*plan.stages.values()], plan.parts, submit, cpu_shards=1), shards))


def _studies(store: Store, table: str) -> list[str]:
    return sorted(open_tables(store).dataset(table).to_table()["study_id"].to_pylist())


def test_smaller_shards_half_done_and_then_finished(source: Path) -> None:
    _run(_plan(source, 2))
    whole = {t: _studies(_plan(source, 2).store, t) for t in ("studies", "grounded_reports")}
    assert len(whole["studies"]) == REPORTS

    smaller = _plan(source, 1)
    for stopped_after in (1, 8, 12):
        _run(smaller, stopped_after)
        for table, studies in whole.items():
            seen = _studies(smaller.store, table)
            assert len(seen) == len(set(seen)) < len(studies)
        assert set(_studies(smaller.store, "positives")) <= set(_studies(smaller.store, "studies"))
        [holding] = read_holdings(smaller.store)
        assert "openi: incomplete" in holding.condition()

    _run(smaller)
    assert sweep(smaller.store, smaller.plan) == []
    assert {table: _studies(smaller.store, table) for table in whole} == whole
    [holding] = read_holdings(smaller.store)
    assert holding.condition() == "openi: complete"

    with pytest.raises(StoreError, match="holds 4 shards of openi, of which this run plans 1"):
        _plan(source, 4)
