"""The account of a run: rows in, rows out and rejects of every stage, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.manifests import Manifest, read_manifests
from storage.shards import Part
from storage.store import Store
from tasks.engines.metering import gpu_s, latency_s
from tasks.pipeline.runner import ShardResult

STAGE_ORDER = ("ingest", "clean", "extract", "filter", "detect", "segment", "assemble")


@dataclass
class StageAccount:
    """One stage over all parts; `rows_in == rows_out + sum(rejects.values())` in its unit."""

    stage: str
    unit: str
    rows_in: int = 0
    rows_out: int = 0
    written: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    discarded: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    shards: int = 0
    skipped: int = 0

    @property
    def asked_a_model(self) -> bool:
        """Whether there was anything to ask a language model, or to remember of one."""
        return "units" in self.usage or "requests" in self.usage

    def as_json(self) -> dict[str, Any]:
        """Plain values for programs; times are seconds, None where nothing was timed."""
        values = {k: dict(v) if isinstance(v, Counter) else v for k, v in vars(self).items()}
        if self.asked_a_model:
            values["latency_median_s"] = latency_s(self.usage, 0.5)
            values["latency_95_percent_s"] = latency_s(self.usage, 0.95)
            values["gpu_s"] = gpu_s(self.usage)
        return values

    def add(self, manifest: Manifest, *, skipped: bool = False) -> None:
        """Count a part; the seconds of a skipped one were spent in an earlier run."""
        self.rows_in += manifest.rows_in
        self.rows_out += manifest.rows_out
        self.written += sum(f.rows for table, f in manifest.outputs.items() if table != "rejects")
        self.rejects.update(manifest.rejects)
        self.discarded.update(manifest.discarded)
        self.usage.update(manifest.usage)
        self.seconds += 0.0 if skipped else manifest.seconds
        self.shards += 1
        self.skipped += skipped


@dataclass(frozen=True)
class DatasetAccount:
    """All stages of a dataset, in the order they run; wall seconds of the run, if it is one."""

    dataset: str
    stages: tuple[StageAccount, ...]
    wall_seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {"dataset": self.dataset, "stages": [stage.as_json() for stage in self.stages]}

    @property
    def computed_shards(self) -> int:
        """Shards that were not skipped."""
        return sum(stage.shards - stage.skipped for stage in self.stages)


def stored_accounts(store: Store, dataset: str = "") -> list[DatasetAccount]:
    """What the store's manifests say, of one dataset or of all."""
    totals: dict[str, dict[str, StageAccount]] = {}
    for made in read_manifests(store, dataset):
        stages = totals.setdefault(made.part.dataset, {})
        stages.setdefault(made.stage, StageAccount(made.stage, made.unit)).add(made)
    return [
        DatasetAccount(name, tuple(stages[s] for s in STAGE_ORDER if s in stages))
        for name, stages in totals.items()
    ]


def account(
    dataset: str, stages: Iterable[Mapping[Part, ShardResult]], wall_seconds: float
) -> DatasetAccount:
    """Sum up a run, stage by stage."""
    accounts = []
    for results in stages:
        manifests = [result.manifest for result in results.values()]
        total = StageAccount(manifests[0].stage, manifests[0].unit)
        for result in results.values():
            total.add(result.manifest, skipped=result.skipped)
        accounts.append(total)
    return DatasetAccount(dataset, tuple(accounts), wall_seconds)
