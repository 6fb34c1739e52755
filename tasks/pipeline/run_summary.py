"""The summary of a run or a store: rows in, rows out and rejects of every stage, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from storage.duplicates import Duplicates, read_duplicates
from storage.funnel import FunnelStep, added
from storage.manifests import Manifest, stage_order
from storage.plans import Holding, read_holdings
from storage.store import Store
from tasks.engines.metering import gpu_s, latency_s
from tasks.pipeline.runner import ShardResult
from tasks.pipeline.word_index import TABLE as WORDS


@dataclass
class StageSummary:
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
    def used_a_model(self) -> bool:
        """Whether a language model, or its response cache, had anything to answer."""
        return "units" in self.usage or "requests" in self.usage

    @property
    def asked_of_a_model(self) -> int:
        """Distinct sentences or texts of each shard that a model was to answer."""
        outcomes = (n for name, n in self.usage.items() if name.startswith("units_failed_"))
        return self.usage["units_answered"] + sum(outcomes)

    @property
    def share_by_rules(self) -> float | None:
        """Share of those that the rules did in the model's place; None where it had none."""
        asked = self.asked_of_a_model
        return self.usage["units_by_rules"] / asked if asked else None

    def in_the_models_place(self) -> str:
        """How many the rules did in the model's place, for a person; empty if none."""
        if not (by_rules := self.usage["units_by_rules"]):
            return ""
        return (
            f"{self.stage}: the model failed at {by_rules:,} of {self.asked_of_a_model:,} "
            f"sentences or texts ({self.share_by_rules:.1%}); the rules did them in its place"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values for programs; times are seconds, None where nothing was timed."""
        values = {k: dict(v) if isinstance(v, Counter) else v for k, v in vars(self).items()}
        if self.used_a_model:
            values["latency_median_s"] = latency_s(self.usage, 0.5)
            values["latency_95_percent_s"] = latency_s(self.usage, 0.95)
            values["gpu_s"] = gpu_s(self.usage)
            values["share_by_rules"] = self.share_by_rules
        return values

    def add(self, manifest: Manifest, *, skipped: bool = False) -> None:
        """Count a part; the seconds of a skipped one were spent in an earlier run."""
        self.rows_in += manifest.rows_in
        self.rows_out += manifest.rows_out
        records = manifest.outputs.keys() - {"rejects", WORDS}
        self.written += sum(manifest.outputs[table].rows for table in records)
        self.rejects.update(manifest.rejects)
        self.discarded.update(manifest.discarded)
        self.usage.update(manifest.usage)
        self.seconds += 0.0 if skipped else manifest.seconds
        self.shards += 1
        self.skipped += skipped


@dataclass(frozen=True)
class DatasetSummary:
    """All stages of a dataset, each after those it reads; wall seconds of the run, if it is one.

    funnels: of each split, what the rules of the dataset's selection took out, if it has any.
    duplicates: studies that are there twice; None where they were not compared.
    """

    dataset: str
    stages: tuple[StageSummary, ...]
    wall_seconds: float | None = None
    funnels: Mapping[str, tuple[FunnelStep, ...]] = field(default_factory=dict)
    duplicates: Duplicates | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        funnels = {split: [asdict(step) for step in steps] for split, steps in self.funnels.items()}
        values: dict[str, Any] = {"dataset": self.dataset}
        values["stages"] = [stage.as_json() for stage in self.stages]
        values["funnels"] = funnels
        if self.duplicates is not None:
            kept = {"studies": self.duplicates.studies, "groups": self.duplicates.groups}
            values["duplicates"] = kept
        return values

    @property
    def computed_shards(self) -> int:
        """Shards that were not skipped."""
        return sum(stage.shards - stage.skipped for stage in self.stages)


def stored_summaries(store: Store, dataset: str = "") -> list[DatasetSummary]:
    """What the store's manifests of the current generation say, of one dataset or of all."""
    return [summarize_holding(store, holding) for holding in read_holdings(store, dataset)]


def summarize_holding(store: Store, holding: Holding) -> DatasetSummary:
    """Sum up what a store holds of a dataset."""
    summary = summarize(holding.dataset, map(ShardResult, holding.current))
    return replace(summary, duplicates=read_duplicates(store, holding))


def summarize(
    dataset: str, results: Iterable[ShardResult], wall_seconds: float | None = None
) -> DatasetSummary:
    """Sum up the shards of a dataset, stage by stage."""
    totals: dict[str, StageSummary] = {}
    manifests = []
    for result in results:
        made = result.manifest
        manifests.append(made)
        total = totals.setdefault(made.stage, StageSummary(made.stage, made.unit))
        total.add(made, skipped=result.skipped)
    stages = tuple(totals[stage] for stage in stage_order(manifests))
    return DatasetSummary(dataset, stages, wall_seconds, _funnels(manifests))


def _funnels(manifests: Iterable[Manifest]) -> dict[str, tuple[FunnelStep, ...]]:
    """The sums over the parts of each split."""
    steps: dict[str, list[FunnelStep]] = {}
    for manifest in manifests:
        if manifest.funnel:
            steps.setdefault(manifest.part.split, []).extend(manifest.funnel)
    return {split: added(of_split) for split, of_split in steps.items()}
