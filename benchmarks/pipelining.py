"""Whether the slowest engine is kept at work, while the others do the shards before and after.

The real flow on shards of one study with a radiograph and a CT volume each. Engines of fixed
latency stand in for a language model, a detector and a segmenter on devices of their own. Each
works on one shard at a time, so that one after the other they would need the sum of their
latencies; while it works, the next shard's tables and images are read.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import nibabel as nib
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.targets import judge
from flows.runtime.prefect_defaults import quiet_prefect
from storage.datasets.reader import SourceRecord, Study, StudyImage
from storage.images.types import Radiograph, Volume
from storage.records import Box, Site
from storage.store import Store
from tasks.engines.protocols import CleanedText, Fingerprint, Segmentation, Ungrounded
from tasks.pipeline.engine_choice import choose_engines
from tasks.pipeline.parts import PartRecords
from tasks.pipeline.settings import BuildSettings
from tasks.pipeline.stages import STAGES, Pipeline, RunContext
from taxonomy.targets import load_taxonomy

SHARDS = 20
TEXT_S, DETECT_S, SEGMENT_S = 2.0, 3.0, 3.0
FINDINGS = "Small right pleural effusion."


@dataclass
class StandIn:
    """An engine that takes `seconds` for each image or batch of texts; `calls` are (start, end).

    concurrency: the shard that it works on, and the one that is prepared or written meanwhile.
    """

    seconds: float
    concurrency: int = 2
    calls: list[tuple[float, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def fingerprint(self) -> Fingerprint:
        """Its name."""
        return {"name": type(self).__name__, "version": "1"}

    def work(self) -> None:
        """Take the time, and note when."""
        with self.lock:
            started = time.perf_counter()
            time.sleep(self.seconds)
            self.calls.append((started, time.perf_counter()))

    @property
    def total_s(self) -> float:
        """Seconds at work."""
        return sum(end - start for start, end in self.calls)

    @property
    def busy(self) -> float:
        """Share of the time from its first call to the end of its last that it was at work."""
        return self.total_s / (self.calls[-1][1] - self.calls[0][0])


class TextModel(StandIn):
    """Keeps every text as it is."""

    def clean(self, texts: Sequence[str]) -> list[CleanedText]:
        """The texts themselves."""
        self.work()
        return [CleanedText(text) for text in texts]


class SlowDetector(StandIn):
    """One box for each site."""

    def detect(
        self,
        image: Radiograph,  # noqa: ARG002
        sites: Sequence[Site],
    ) -> list[list[Box] | Ungrounded]:
        """The same box for every site."""
        self.work()
        return [[Box(0, 0, 8, 8, 0.5)] for _ in sites]


class SlowSegmenter(StandIn):
    """The whole volume for each site."""

    def segment(self, volume: Volume, sites: Sequence[Site]) -> list[Segmentation | Ungrounded]:
        """The same mask for every site."""
        self.work()
        return [Segmentation(np.ones(volume.hu.shape, dtype=np.bool_), 0.5) for _ in sites]


class Studies:
    """Reports that all name one finding, each with the same radiograph and volume."""

    def __init__(self, folder: Path) -> None:
        Image.new("L", (64, 64), 100).save(folder / "frontal.png")
        volume = nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4))
        nib.save(volume, folder / "chest.nii.gz")
        self._images = (
            StudyImage("frontal", str(folder / "frontal.png"), "CR"),
            StudyImage("chest", str(folder / "chest.nii.gz"), "CT"),
        )

    def records(self) -> Iterator[SourceRecord]:
        """One a shard."""
        return (SourceRecord("train", str(n)) for n in range(SHARDS))

    def fingerprint(self) -> str:
        """Always the same."""
        return "1"

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study]:
        """A study of each."""
        for record in records:
            yield Study(record.key, FINDINGS, "Effusion.", "authored", images=self._images)


def main() -> int:
    """Run the flow and print how busy each engine was; 1 if a target is missed."""
    quiet_prefect()
    import flows.build_grounded_reports as flow

    engines = (TextModel(TEXT_S), SlowDetector(DETECT_S), SlowSegmenter(SEGMENT_S))
    with tempfile.TemporaryDirectory() as folder:
        settings = BuildSettings(dataset="openi", store=f"{folder}/store")
        plan = _plan(settings, Path(folder), *engines)
        with patch.object(flow, "pipeline", lambda _: plan):
            wall_s = flow.build_grounded_reports(settings).wall_seconds or 0.0
    _print(engines, wall_s)
    slowest = max(engines, key=lambda engine: engine.total_s)
    assert len(slowest.calls) == SHARDS
    return judge(
        "pipelining",
        {
            "time that the slowest engine is at work, from its first shard to its last, share": (
                slowest.busy
            ),
            "wall time, times the slowest engine's": wall_s / slowest.total_s,
        },
    )


def _plan(
    settings: BuildSettings,
    folder: Path,
    text: TextModel,
    detector: SlowDetector,
    segmenter: SlowSegmenter,
) -> Pipeline:
    taxonomy = load_taxonomy()
    chosen = choose_engines(settings, taxonomy)
    engines = replace(chosen, cleaner=text, detector=detector, segmenter=segmenter)
    reader = Studies(folder)
    parts = PartRecords(settings.dataset, reader.records(), 1)
    run = RunContext(settings, reader, parts, engines, taxonomy)
    stages = {entry.name: entry.bind(run) for entry in STAGES}
    plan = parts.plan(settings.dataset, stages)
    return Pipeline(Store(settings.store), plan, tuple(parts), stages, taxonomy, reader)


def _print(engines: Sequence[StandIn], wall_s: float) -> None:
    table = Table(title=f"{SHARDS} shards, each engine one at a time", title_justify="left")
    for name in ("engine", "a shard s", "total s", "busy"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for engine in engines:
        row = (f"{engine.seconds:.1f}", f"{engine.total_s:.1f}", f"{engine.busy:.1%}")
        table.add_row(type(engine).__name__, *row)
    together = sum(engine.total_s for engine in engines)
    table.add_row("one after the other", "", f"{together:.1f}", "")
    table.add_row("the flow", "", f"{wall_s:.1f}", "")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
