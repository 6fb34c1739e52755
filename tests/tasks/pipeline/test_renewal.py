"""Renewal after a change of the taxonomy gives, byte for byte, what a build from nothing gives."""

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.manifests import Manifest, read_manifests
from storage.plans import write_plan
from storage.staging import StagedStore
from storage.store import Store, StoreError
from tasks.pipeline.runner import ShardResult, run_stage
from tasks.pipeline.settings import BuildSettings
from tasks.pipeline.stages import Pipeline, pipeline
from tasks.pipeline.taxonomies import publish, remember
from taxonomy.targets import Taxonomy, load_taxonomy
from tests.tasks.pipeline.edits import edited

REPORTS = 60
SHARD_SIZE = 30


@dataclass(frozen=True)
class CutOff(StagedStore):
    """A staged store whose disk is gone after some writes; `left` counts those until then."""

    left: list[int] = field(default_factory=list)

    def write(self, path: str, data: bytes) -> None:
        if self.left and self.left[0] == 0:
            self.left.pop(0)
            raise StoreError("the disk is gone")
        if self.left:
            self.left[0] -= 1
        super().write(path, data)


def build(root: Path, source: Path, taxonomy: Taxonomy, cuts: tuple[int, ...] = ()) -> Path:
    """Build in place a store that is empty, beside itself one that is not; gives its folder."""
    store = Store(str(root))
    given = BuildSettings(
        dataset="openi",
        store=str(root),
        source=str(source),
        limit=REPORTS,
        shard_size=SHARD_SIZE,
        taxonomy_version=publish(store, taxonomy),
    )
    run = pipeline(given)
    remember(store, run.taxonomy)
    place = CutOff(str(root), "openi", [*cuts]) if store.list("manifests") else store
    for _ in cuts:
        with suppress(StoreError):
            carry_out(place, run)
    carry_out(place, run)
    pipeline.cache_clear()
    return root


def carry_out(place: Store, run: Pipeline) -> None:
    write_plan(place, run.plan)
    for part in run.parts:
        made: dict[str, ShardResult] = {}
        for name, stage in run.stages.items():
            upstream = {before: made[before] for before in stage.reads}
            made[name] = run_stage(place, stage, part, upstream)


def tables(root: Path) -> dict[str, bytes]:
    """The shards of a store, those that are staged in the place of those below."""
    found = {str(p.relative_to(root)): p.read_bytes() for p in root.glob("*/openi/*.parquet")}
    staged = StagedStore(str(root), "openi")
    for path in staged.deleted():
        found.pop(path, None)
    written = {path: (root / place).read_bytes() for path, place in staged.staged().items()}
    return found | {path: data for path, data in written.items() if path.endswith(".parquet")}


@pytest.fixture(scope="module")
def source(real_input: Callable[[str], Path]) -> Path:
    return real_input("openi/NLMCXR_reports.tgz").parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    return build(tmp_path_factory.mktemp("built"), source, load_taxonomy())


def manifests(root: Path) -> dict[tuple[str, str], Manifest]:
    found = read_manifests(StagedStore(str(root), "openi"))
    return {(m.stage, m.part.name): m for m in found}


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 30), max_size=2))
def test_renewing_equals_building_anew(
    seed: int, cuts: list[int], built: Path, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    taxonomy, done = load_taxonomy(), []
    for _ in range(rng.choice((1, 1, 3))):
        what, taxonomy = edited(taxonomy, rng)
        done.append(what)
    folder = tmp_path_factory.mktemp("renewed")
    renewed = build(shutil.copytree(built, folder / "renewed"), source, taxonomy, tuple(cuts))
    whole = build(folder / "whole", source, taxonomy)
    assert tables(renewed) == tables(whole), done
    of_renewed, of_whole = manifests(renewed), manifests(whole)
    assert of_renewed.keys() == of_whole.keys()
    for key, made in of_renewed.items():
        same = (made.digest, made.rows_in, made.rows_out, made.rejects, made.discarded)
        other = of_whole[key]
        assert same == (
            other.digest,
            other.rows_in,
            other.rows_out,
            other.rejects,
            other.discarded,
        ), (key, done)


def test_a_rename_reads_no_report_again(built: Path, source: Path, tmp_path: Path) -> None:
    taxonomy = load_taxonomy()
    before, name = "cardiomegaly", "megalocardia"  # a word of no report
    old = taxonomy[before]
    renamed = replace(old, name=name, synonyms=(*old.synonyms, before), replaces=(before,))
    targets = [renamed if target.name == before else target for target in taxonomy.targets.values()]
    new = Taxonomy({target.name: target for target in targets})
    renewed = build(shutil.copytree(built, tmp_path / "renewed"), source, new)
    made = manifests(renewed)
    assert all(made["assemble", part].renewed == 0 for stage, part in made if stage == "assemble")
    assert {m.renewed for (stage, _), m in made.items() if stage != "ingest"} <= {0, None}
    assert tables(renewed) == tables(build(tmp_path / "whole", source, new))
