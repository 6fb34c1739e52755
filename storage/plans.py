"""Plans: which parts a dataset has, and what a store holds of them.

A run writes the plan of its dataset before its first shard. Until the run is done, the store may
hold shards of an earlier plan beside new ones, as when a dataset is built with smaller shards. What
a reader sees is the current generation alone: shards of planned parts whose manifests agree with
the plan and with each other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

from pydantic import TypeAdapter

from storage.manifests import Manifest, read_manifests, stage_order
from storage.schemas import SCHEMAS
from storage.shards import Part, dataset_folder
from storage.store import Store

FOLDER = "plans"
RECORDS = "records"
"""The input of a dataset's first stage: the digest of a part's source records."""


@dataclass(frozen=True)
class Plan:
    """The parts and stages of a dataset.

    records: digest of the source records of each part, by the part's name.
    """

    dataset: str
    stages: tuple[str, ...]
    records: Mapping[str, str]

    @property
    def path(self) -> str:
        """Where the plan lives in the store."""
        return _path(self.dataset)


@dataclass(frozen=True)
class Holding:
    """What a store holds of a dataset.

    plan: of the last run; None for predictions, which are single parts without a plan.
    current: manifests whose shards belong together.
    older: manifests of an earlier generation, or of parts that are no longer planned.
    """

    dataset: str
    plan: Plan | None
    current: tuple[Manifest, ...]
    older: tuple[Manifest, ...]

    @cached_property
    def missing(self) -> dict[str, int]:
        """Planned shards that are not there, by stage; a stage with all of them is left out."""
        if self.plan is None:
            return {}
        held = Counter(manifest.stage for manifest in self.current)
        planned = {stage: len(self.plan.records) for stage in self.plan.stages}
        return {stage: n - held[stage] for stage, n in planned.items() if n > held[stage]}

    @cached_property
    def mixed(self) -> list[str]:
        """Stages that made some parts with other settings than the rest."""
        recipes: dict[str, set[str]] = {}
        for manifest in self.current:
            recipe = json.dumps(manifest.recipe, sort_keys=True)
            recipes.setdefault(manifest.stage, set()).add(recipe)
        made = [stage for stage, different in recipes.items() if len(different) > 1]
        return [] if self.plan is None else [s for s in stage_order(self.current) if s in made]

    @property
    def is_complete(self) -> bool:
        """Whether all planned shards are there, made with the same settings."""
        return not self.missing and not self.mixed

    def condition(self) -> str:
        """One line for a person: complete, or what is missing and what to do."""
        if self.is_complete:
            return f"{self.dataset}: complete"
        faults = []
        if self.missing and self.plan:
            stages = ", ".join(f"{stage} {n:,}" for stage, n in self.missing.items())
            faults.append(
                f"of {len(self.plan.records):,} shards of each stage are missing {stages}"
            )
        if self.older:
            faults.append(f"{len(self.older):,} shards of an earlier build are left out")
        if self.mixed:
            faults.append(f"made partly with other settings: {', '.join(self.mixed)}")
        return f"{self.dataset}: incomplete: {'; '.join(faults)}: run `vividmed build` on it again"


def write_plan(store: Store, plan: Plan) -> None:
    """Put a plan in the place of the one before."""
    if read_plan(store, plan.dataset) != plan:
        store.write(plan.path, json.dumps(asdict(plan), indent=1, sort_keys=True).encode())


def read_plan(store: Store, dataset: str) -> Plan | None:
    """The plan of a dataset; None if there is none that can be read."""
    data = store.read(_path(dataset))
    try:
        return _PLAN.validate_json(data) if data is not None else None
    except ValueError:
        return None


def read_holdings(store: Store, dataset: str = "") -> list[Holding]:
    """What the store holds of one dataset, or of all, by name."""
    by_dataset: dict[str, list[Manifest]] = {}
    for manifest in read_manifests(store, dataset):
        by_dataset.setdefault(manifest.part.dataset, []).append(manifest)
    return [
        _holding(name, read_plan(store, name), manifests) for name, manifests in by_dataset.items()
    ]


def current_manifests(store: Store, dataset: str = "") -> list[Manifest]:
    """The manifests of the current generation, of one dataset or of all."""
    return [m for holding in read_holdings(store, dataset) for m in holding.current]


def _holding(dataset: str, plan: Plan | None, manifests: Iterable[Manifest]) -> Holding:
    manifests = list(manifests)
    generation = _Generation(plan, manifests)
    current = [m for m in manifests if generation.has(m)]
    older = [m for m in manifests if not generation.has(m)]
    return Holding(dataset, plan, tuple(current), tuple(older))


class _Generation:
    """The manifests of a dataset that agree with its plan and with each other."""

    def __init__(self, plan: Plan | None, manifests: Iterable[Manifest]) -> None:
        self._plan = plan
        self._manifests = {(m.stage, m.part): m for m in manifests}
        self._stages = {stage for stage, _ in self._manifests}
        self._known: dict[tuple[str, Part], bool] = {}

    def has(self, manifest: Manifest) -> bool:
        key = manifest.stage, manifest.part
        if key not in self._known:
            self._known[key] = False  # manifests of several versions may read each other
            self._known[key] = self._is_planned(manifest) and all(
                self._is_made_from(manifest.part, name, digest)
                for name, digest in manifest.inputs.items()
            )
        return self._known[key]

    def _is_planned(self, manifest: Manifest) -> bool:
        if self._plan is None:
            return True
        planned = self._plan.records.get(manifest.part.name)
        return planned is not None and manifest.inputs.get(RECORDS, planned) == planned

    def _is_made_from(self, part: Part, name: str, digest: str) -> bool:
        """Whether an input is the shard that is there now; one from elsewhere may be anything."""
        stage, _, table = name.rpartition(".")
        if table not in SCHEMAS and stage not in self._stages:
            return True
        made_by = self._manifests.get((stage, part))
        if made_by is None or not self.has(made_by):
            return False
        file = made_by.outputs.get(table)
        return file is not None and file.sha256 == digest


def _path(dataset: str) -> str:
    return f"{FOLDER}/{dataset_folder(dataset)}.json"


_PLAN = TypeAdapter(Plan)
