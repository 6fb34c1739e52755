"""A data set without reports: it is ingested, with what people marked, and nothing else is made."""

from pathlib import Path

import pytest
import yaml
from rich.console import Console

from flows.cli.tables import print_summaries
from storage.plans import read_holdings, write_plan
from storage.shards import read_shard
from tasks.pipeline.run_summary import stored_summaries
from tasks.pipeline.runner import run_stage
from tasks.pipeline.settings import make_settings
from tasks.pipeline.stages import pipeline

READER = """
from vividmed.datasets import Gold, GoldBox, Reject, SourceRecord, Study, StudyImage
from storage.records import Box


class TinyReader:
    def __init__(self, declaration, folder):
        self.names = sorted(path.stem for path in folder.glob("*.box"))
        self.folder = folder

    def records(self):
        return (SourceRecord("train", name) for name in self.names)

    def fingerprint(self):
        return "1"

    def read(self, records):
        for record in records:
            corners = (self.folder / f"{record.key}.box").read_text().split()
            if len(corners) != 4:
                yield Reject(record.key, record.key, "row_malformed", "no four corners")
                continue
            box = GoldBox("film", Box(*map(float, corners), score=1.0), "Nodule")
            film = StudyImage("film", str(self.folder / "film.png"))
            yield Study(record.key, None, None, "tiny", images=(film,), gold=Gold(boxes=(box,)))
"""


def test_only_the_first_stage_runs_and_its_summary_reads_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(str(tmp_path))
    files = tmp_path / "files"
    files.mkdir()
    (files / "1.box").write_text("1 2 3 4")
    (files / "2.box").write_text("1 2")
    declared = {
        "title": "Boxes",
        "licence": "local",
        "access": "here",
        "citation": "none",
        "source": "tiny",
        "splits": ["train"],
        "folder": "files",
        "reader": "tiny_reader:TinyReader",
        "reports": False,
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(declared))
    given = {"dataset": str(tmp_path / "tiny.yaml"), "store": str(tmp_path / "store")}
    plan = pipeline(make_settings(given))
    assert [*plan.stages] == ["ingest"]
    write_plan(plan.store, plan.plan)
    [part] = plan.parts
    result = run_stage(plan.store, plan.stages["ingest"], part, {})
    boxes = read_shard(plan.store, result.manifest.outputs["gold_boxes"]).to_pylist()
    assert [(box["study_id"], box["label"], box["x_max"]) for box in boxes] == [("1", "Nodule", 3)]

    [holding] = read_holdings(plan.store)
    assert holding.condition() == "tiny: complete"
    screen = Console(width=100, record=True, quiet=False)
    with screen.capture() as shown:
        print_summaries(stored_summaries(plan.store), screen)
    words = shown.get().split()
    assert words[words.index("files") - 1 :][:6] == ["ingest", "files", "2", "1", "1", "2"]
    assert "clean" not in words
