"""Shards that start when their inputs are there; the test itself ends them."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from storage.manifests import Manifest
from storage.shards import Part
from tasks.pipeline.runner import ShardResult, Stage
from tasks.pipeline.schedule import run_shards
from tasks.step import StepOutput

PARTS = [Part("openi", "train", n) for n in range(3)]
Shard = tuple[str, int]


def _no_step(*_: object) -> StepOutput:
    raise AssertionError("a schedule runs no step itself")


def _stage(name: str, *reads: str, concurrency: int | None = None) -> Stage:
    inputs = [(stage, "rows") for stage in reads]
    return Stage(name, "rows", "row", {}, _no_step, inputs, concurrency=concurrency)


def _result(stage: str, part: Part) -> ShardResult:
    return ShardResult(Manifest(stage, part, "", {}, {}, {}, "row", 0, 0))


class Worker:
    """Takes the shards of a schedule; they run until the test ends them."""

    def __init__(self) -> None:
        self.running: dict[Shard, Future[ShardResult]] = {}
        self.upstream: dict[Shard, set[str]] = {}
        self._changed = threading.Condition()

    def submit(
        self, stage: str, part: Part, upstream: Mapping[str, ShardResult]
    ) -> Future[ShardResult]:
        with self._changed:
            self.upstream[stage, part.index] = {*upstream}
            future = self.running[stage, part.index] = Future[ShardResult]()
            self._changed.notify_all()
        return future

    def end(self, *shards: Shard) -> None:
        for stage, part in shards:
            self.running.pop((stage, part)).set_result(_result(stage, PARTS[part]))

    def runs(self, *shards: Shard) -> None:
        """Check that these shards, and no others, come to run."""
        with self._changed:
            settled = self._changed.wait_for(lambda: set(self.running) >= set(shards), timeout=60)
        assert settled, self.running
        assert set(self.running) == set(shards)


@contextmanager
def _run(
    worker: Worker, stages: Sequence[Stage], cpu_shards: int, known: Sequence[ShardResult] = ()
) -> Iterator[Future[list[ShardResult]]]:
    """The results of a run that goes on in a thread."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(
            lambda: list(run_shards(stages, PARTS, worker.submit, cpu_shards, known))
        )


def test_a_shard_goes_on_while_the_engine_before_has_the_next_one() -> None:
    stages = [
        _stage("text", concurrency=1),
        _stage("detect", "text", concurrency=1),
        _stage("segment", "text", concurrency=1),
        _stage("assemble", "text", "detect", "segment"),
    ]
    worker = Worker()
    with _run(worker, stages, cpu_shards=1) as results:
        worker.runs(("text", 0))
        worker.end(("text", 0))
        worker.runs(("text", 1), ("detect", 0), ("segment", 0))
        worker.end(("text", 1))
        worker.runs(("text", 2), ("detect", 0), ("segment", 0))
        worker.end(("text", 2), ("detect", 0))
        worker.runs(("detect", 1), ("segment", 0))
        worker.end(("segment", 0))
        worker.runs(("assemble", 0), ("detect", 1), ("segment", 1))
        worker.end(("assemble", 0), ("detect", 1), ("segment", 1))
        worker.runs(("assemble", 1), ("detect", 2), ("segment", 2))
        worker.end(("assemble", 1), ("detect", 2), ("segment", 2))
        worker.runs(("assemble", 2))
        worker.end(("assemble", 2))
    assert len(results.result()) == len(stages) * len(PARTS)
    assert worker.upstream["assemble", 1] == {"text", "detect", "segment"}


def test_stages_on_the_cpu_share_it_and_the_furthest_shard_goes_first() -> None:
    worker = Worker()
    stages = [_stage("clean"), _stage("extract", "clean")]
    with _run(worker, stages, cpu_shards=2) as results:
        worker.runs(("clean", 0), ("clean", 1))
        worker.end(("clean", 1))
        worker.runs(("clean", 0), ("extract", 1))
        worker.end(("clean", 0))
        worker.runs(("extract", 0), ("extract", 1))
        worker.end(("extract", 0), ("extract", 1))
        worker.runs(("clean", 2))
        worker.end(("clean", 2))
        worker.runs(("extract", 2))
        worker.end(("extract", 2))
    assert len(results.result()) == 6


def test_the_first_failure_ends_the_run_and_starts_nothing_more() -> None:
    worker = Worker()
    with _run(worker, [_stage("clean"), _stage("extract", "clean")], cpu_shards=2) as results:
        worker.runs(("clean", 0), ("clean", 1))
        worker.running.pop(("clean", 0)).set_exception(OSError("the disk is full"))
        with pytest.raises(OSError, match="the disk is full"):
            results.result()
        worker.end(("clean", 1))
    assert worker.running == {}


def test_what_is_known_is_not_run_again() -> None:
    known = [_result("ingest", part) for part in PARTS]
    worker = Worker()
    with _run(worker, [_stage("ingest"), _stage("clean", "ingest")], 3, known) as results:
        worker.runs(("clean", 0), ("clean", 1), ("clean", 2))
        worker.end(("clean", 0), ("clean", 1), ("clean", 2))
    assert {result.manifest.stage for result in results.result()} == {"clean"}


def test_a_stage_that_reads_what_no_stage_makes_is_refused() -> None:
    stages = [_stage("detect", "filter"), _stage("filter")]
    with pytest.raises(ValueError, match="no stage before it makes"):
        list(run_shards(stages, PARTS, Worker().submit, cpu_shards=1))
