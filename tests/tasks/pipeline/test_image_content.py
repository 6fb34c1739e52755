"""What is done again when the files of images change: boxes and masks of their shard, no text."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from storage import digests
from storage.datasets.declaration import read_declaration
from storage.images.limits import image_limits
from storage.images.types import Radiograph, Volume
from storage.records import Box, Site
from storage.shards import Part, read_shard
from storage.store import Store
from tasks.engines.protocols import Segmentation, Ungrounded
from tasks.pipeline.engine_choice import choose_engines
from tasks.pipeline.parts import PartRecords
from tasks.pipeline.runner import ShardResult, run_stage
from tasks.pipeline.schedule import run_shards
from tasks.pipeline.settings import make_settings
from tasks.pipeline.stages import STAGES, RunContext
from taxonomy.targets import load_taxonomy
from tests.storage.images.dicom_files import write_ct_slice

FILM, CUT, ABSENT, SERIES = range(4)
"""The shards, of one study each, by what its image is; study 4 names nothing to look for."""
FILES = ("film.png", "cut.png", "absent.png", "series", "normal.png")
DECLARATION = {
    "title": "Films and a series",
    "licence": "none",
    "access": "made by the test",
    "citation": "none",
    "source": "test",
    "splits": ["train"],
    "shard_size": 1,
    "reader": "table",
    "layout": {
        "table": "reports.csv",
        "columns": {"study_id": "study", "findings": "findings", "impression": "impression"},
        "image": "{file}",
        "modality": "DX",
    },
}


class _Brightest:
    """One box on a film, scored by its brightest pixel; the brightest voxels of a volume."""

    fingerprint = {"name": "brightest", "version": "1"}  # noqa: RUF012

    def detect(self, image: Radiograph, sites: Sequence[Site]) -> list[list[Box] | Ungrounded]:
        return [[Box(0, 0, 2, 2, float(image.pixels[0, 0]))] for _ in sites]

    def segment(self, volume: Volume, sites: Sequence[Site]) -> list[Segmentation | Ungrounded]:
        return [Segmentation(volume.hu == volume.hu.max(), 1.0) for _ in sites]


class Archive:
    """A folder of images and reports, a store, and which shards each run computes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(str(folder / "store"))
        self.reads: list[str] = []  # names of the files read for their digests
        self.results: dict[tuple[str, int], ShardResult] = {}
        rows = [f"{n},{_findings(name)},None.,{name}" for n, name in enumerate(FILES)]
        (folder / "reports.csv").write_text("\n".join(["study,findings,impression,file", *rows]))
        (folder / "archive.yaml").write_text(yaml.safe_dump(DECLARATION))
        for name in ("film.png", "cut.png", "normal.png"):
            self.draw(name, 50)
        whole = (folder / "cut.png").read_bytes()
        (folder / "cut.png").write_bytes(whole[:-30] + bytes(30))
        (folder / "series").mkdir()
        for z in range(3):
            self.slice(z, 100 + z)

    def draw(self, name: str, value: int) -> None:
        pixels = np.random.default_rng(0).integers(0, 100, (20, 20), np.uint8)
        pixels[0, 0], pixels[0, 1] = value, 100
        # Of one size whatever it shows: stored, not compressed.
        Image.fromarray(pixels).save(self.folder / name, compress_level=0)

    def slice(self, z: int, value: int) -> None:
        pixels = np.full((8, 8), value, np.int16)
        write_ct_slice(self.folder / "series" / f"{z}.dcm", pixels, (0, 0, z))

    def change(self, name: str, how: Callable[[], None]) -> None:
        """Change a file; size and time of modification stay."""
        time.sleep(0.05)  # a tick of the clock that stamps files
        before = (self.folder / name).stat()
        how()
        os.utime(self.folder / name, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (self.folder / name).stat().st_size == before.st_size

    def run(self) -> set[tuple[str, int]]:
        """Run all stages on all shards; what was computed, less the reading of the data set."""
        settings = make_settings({"dataset": str(self.folder / "archive.yaml")})
        reader = read_declaration(self.folder / "archive.yaml").open(self.folder)
        taxonomy = load_taxonomy()
        engines = choose_engines(settings, taxonomy)
        engines = replace(engines, detector=_Brightest(), segmenter=_Brightest())
        parts = PartRecords("archive", reader.records(), 1)
        run = RunContext(settings, reader, parts, engines, taxonomy)
        stages = {entry.name: entry.bind(run) for entry in STAGES}

        def submit(
            stage: str, part: Part, upstream: Mapping[str, ShardResult]
        ) -> Future[ShardResult]:
            future = Future[ShardResult]()
            future.set_result(run_stage(self.store, stages[stage], part, upstream))
            return future

        results = list(run_shards([*stages.values()], [*parts], submit, cpu_shards=1))
        self.results = {(r.manifest.stage, r.manifest.part.index): r for r in results}
        return {key for key, r in self.results.items() if not r.skipped and key[0] != "ingest"}

    def rows(self, stage: str, shard: int, table: str) -> pa.Table:
        return read_shard(self.store, self.results[stage, shard].manifest.outputs[table])


def _findings(name: str) -> str:
    return "No mass." if name == "normal.png" else "There is a mass in the right lung."


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Run once, with digests kept also of files that were written just now."""
    folder = tmp_path_factory.mktemp("archive")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIVIDMED_HOME", str(folder / "home"))
        patch.setattr(digests, "_SETTLED_NS", -1)
        made = Archive(folder)
        one = digests._read

        def noted(file: Path) -> tuple[str, str, bool]:
            made.reads.append(file.name)
            return one(file)

        patch.setattr(digests, "_read", noted)
        made.run()
        yield made


def test_a_second_run_computes_nothing_and_reads_no_image(archive: Archive) -> None:
    assert sorted(archive.reads) == ["0.dcm", "1.dcm", "2.dcm", "cut.png", "film.png"]
    archive.reads.clear()
    assert archive.run() == set()
    assert archive.reads == []


def test_another_picture_of_the_same_size_and_time_gets_new_boxes(archive: Archive) -> None:
    before = archive.rows("detect", FILM, "boxes")
    archive.reads.clear()
    archive.change("film.png", lambda: archive.draw("film.png", 90))
    assert archive.run() == {("detect", FILM), ("assemble", FILM)}
    assert archive.reads == ["film.png"]
    assert archive.rows("detect", FILM, "boxes") != before
    assert archive.run() == set()


def test_a_repaired_image_loses_its_old_failure(archive: Archive) -> None:
    assert archive.rows("detect", CUT, "rejects")["reason"].unique().to_pylist() == [
        "image_unreadable"
    ]
    archive.change("cut.png", lambda: archive.draw("cut.png", 50))
    assert archive.run() == {("detect", CUT), ("assemble", CUT)}
    assert archive.rows("detect", CUT, "rejects").num_rows == 0
    assert archive.rows("detect", CUT, "boxes").num_rows


def test_an_image_that_appears_is_read(archive: Archive) -> None:
    assert archive.rows("detect", ABSENT, "rejects")["reason"].unique().to_pylist() == [
        "image_not_found"
    ]
    archive.draw("absent.png", 50)
    computed = archive.run()
    assert ("detect", ABSENT) in computed
    assert {shard for _, shard in computed} == {ABSENT}
    assert archive.rows("detect", ABSENT, "boxes").num_rows


def test_a_slice_of_a_series_decides_about_its_masks(archive: Archive) -> None:
    before = archive.rows("segment", SERIES, "masks")
    archive.change("series/0.dcm", lambda: archive.slice(0, 300))
    assert archive.run() == {("segment", SERIES), ("assemble", SERIES)}
    assert archive.rows("segment", SERIES, "masks") != before


def test_an_image_that_nothing_is_looked_for_in_costs_nothing(archive: Archive) -> None:
    archive.change("normal.png", lambda: archive.draw("normal.png", 90))
    assert archive.run() == set()


def test_under_a_higher_limit_an_image_that_was_too_large_is_read(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVIDMED_MAX_PIXELS", "100")
    image_limits.cache_clear()
    archive.run()
    rejects = archive.rows("detect", FILM, "rejects")
    assert rejects["reason"].unique().to_pylist() == ["too_large"]
    monkeypatch.undo()
    image_limits.cache_clear()
    archive.run()
    assert archive.rows("detect", FILM, "rejects").num_rows == 0
