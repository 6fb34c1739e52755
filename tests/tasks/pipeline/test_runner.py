from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from storage.rejects import Reject
from storage.shards import Part, table_from_rows
from storage.store import Store
from tasks.pipeline.runner import ShardResult, Stage, run_stage
from tasks.step import StepOutput

PART = Part("openi", "train", 0)
ROW = {"dataset": "openi", "split": "train", "study_id": "CXR1"}


class Recorder:
    """Two stages on a real store, counting how often each step runs."""

    def __init__(self, root: Path) -> None:
        self.store = Store(str(root))
        self.calls: list[str] = []
        self.text = "Clear."
        self.reason = "xml_unreadable"
        self.recipe: dict[str, Any] = {"version": 1}

    def run(self) -> dict[str, ShardResult]:
        studies = Stage("ingest", "studies", "file", self.recipe, self._studies)
        clean = Stage(
            "clean", "clean_reports", "report", {}, self._clean, inputs=(("ingest", "studies"),)
        )
        first = run_stage(self.store, studies, PART, {})
        return {"ingest": first, "clean": run_stage(self.store, clean, PART, {"ingest": first})}

    def _studies(self, _: Part) -> StepOutput:
        self.calls.append("ingest")
        rows = table_from_rows("studies", [ROW | {"findings": self.text}])
        return StepOutput(rows, [Reject("CXR2", "2.xml", self.reason, "broken")], 2, 1)

    def _clean(self, _: Part, studies: pa.Table) -> StepOutput:
        self.calls.append("clean")
        rows = table_from_rows(
            "clean_reports", studies.select(["study_id", "findings"]).to_pylist()
        )
        return StepOutput(rows, [], studies.num_rows, rows.num_rows)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


def test_the_second_run_does_nothing(recorder: Recorder) -> None:
    first = recorder.run()
    second = recorder.run()
    assert recorder.calls == ["ingest", "clean"]
    assert not any(result.skipped for result in first.values())
    assert all(result.skipped for result in second.values())
    assert second["ingest"].manifest.rejects == {"xml_unreadable": 1}


@pytest.mark.parametrize("lost", ["studies", "rejects"])
def test_a_lost_shard_is_made_again_with_what_depends_on_it(recorder: Recorder, lost: str) -> None:
    path = recorder.run()["ingest"].manifest.outputs[lost].path
    (Path(recorder.store.root) / path).unlink()
    recorder.run()
    assert recorder.calls == ["ingest", "clean"] * 2
    recorder.run()
    assert recorder.calls == ["ingest", "clean"] * 2


def test_what_a_server_could_not_do_is_tried_again(recorder: Recorder) -> None:
    recorder.reason = "server_error"
    recorder.run()
    recorder.run()
    assert recorder.calls == ["ingest", "clean", "ingest"]


def test_a_lost_last_shard_costs_only_itself(recorder: Recorder) -> None:
    path = recorder.run()["clean"].manifest.outputs["clean_reports"].path
    (Path(recorder.store.root) / path).write_bytes(b"damaged")
    recorder.run()
    assert recorder.calls == ["ingest", "clean", "clean"]


def test_a_new_recipe_with_the_same_output_stops_there(recorder: Recorder) -> None:
    recorder.run()
    recorder.recipe = {"version": 2}
    recorder.run()
    assert recorder.calls == ["ingest", "clean", "ingest"]


def test_a_new_output_is_followed_downstream(recorder: Recorder) -> None:
    recorder.run()
    recorder.recipe, recorder.text = {"version": 2}, "Effusion."
    recorder.run()
    assert recorder.calls == ["ingest", "clean"] * 2


def test_a_step_that_loses_a_record_is_stopped(recorder: Recorder) -> None:
    def careless(_: Part) -> StepOutput:
        return StepOutput(table_from_rows("studies", []), [], 2, 1)

    with pytest.raises(AssertionError, match="lost records: 2 in, 1 out, 0 rejected"):
        run_stage(recorder.store, Stage("ingest", "studies", "file", {}, careless), PART, {})
    assert recorder.store.list("") == []
