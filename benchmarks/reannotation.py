"""What a change of the taxonomy costs, as a share of a full run, on all reports of OpenI.

A store is built whole with the embedded engines. In a copy of it a synonym is added, in another one
a target renamed, and the data set is renewed beside itself. What is renewed must be what was
forecast, and the CPU time of engines and storage is compared with that of the build from nothing.
To list the reports of the source takes two seconds of every run, and is in neither.

With `--recombined 1000000`, the shards of OpenI are then repeated under new study ids until there
are that many reports, and the forecast and the renewal are measured on these too. A full run of
them is taken to cost as many times the run of OpenI as there are reports.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.targets import judge
from storage.inputs import fetch, input_path
from storage.manifests import Manifest, read_manifests, recipe_digest, write_manifest
from storage.plans import read_holdings, write_plan
from storage.shards import Part, read_shard, shard_path, write_shard
from storage.staging import StagedStore
from storage.store import Store
from tasks.pipeline.forecast import forecast
from tasks.pipeline.runner import ShardResult, Stage, run_stage
from tasks.pipeline.settings import BuildSettings
from tasks.pipeline.stages import Pipeline, pipeline
from tasks.pipeline.taxonomies import publish, remember
from taxonomy.targets import Taxonomy, load_taxonomy

DATASET = "openi"
SYNONYM = ("cardiomegaly", "cardiac silhouette prominence")
RENAMED = ("cardiomegaly", "cardiac enlargement in total")


@dataclass(frozen=True)
class Cost:
    """What a run took: CPU seconds, and the studies that its text steps read again."""

    cpu_s: float
    read_again: int


def main() -> int:
    """Measure, print, and judge by the targets."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--recombined", type=int, default=0)
    asked = parser.parse_args()
    fetch([DATASET], print)
    figures: dict[str, float] = {}
    old = load_taxonomy()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        full, reports = _build(whole, old)
        print(f"{reports:,} reports from nothing: {full.cpu_s:.1f} CPU s")
        for name, new in {"one synonym": with_synonym(old), "a rename": with_rename(old)}.items():
            root = shutil.copytree(whole, Path(folder, name.replace(" ", "-")))
            expected = _expected(root, old, new)
            cost, _ = _build(root, new)
            share = cost.cpu_s / full.cpu_s
            print(
                f"{name}: {cost.read_again:,} reports read again ({expected:,} forecast), "
                f"{cost.cpu_s:.2f} CPU s, {share:.1%} of a full run"
            )
            figures[f"{name}, share of a full run"] = share
            figures[f"{name}, reports read again that were not forecast"] = abs(
                cost.read_again - expected
            )
        if asked.recombined:
            _recombined(whole, Path(folder, "many"), asked.recombined, full.cpu_s / reports, old)
    return judge("reannotation", figures)


def with_synonym(taxonomy: Taxonomy) -> Taxonomy:
    """The taxonomy with one synonym more."""
    name, synonym = SYNONYM
    target = taxonomy[name]
    added = replace(target, synonyms=(*target.synonyms, synonym))
    return Taxonomy({**taxonomy.targets, name: added})


def with_rename(taxonomy: Taxonomy) -> Taxonomy:
    """The taxonomy with one target under another name."""
    before, name = RENAMED
    target = taxonomy[before]
    renamed = replace(target, name=name, synonyms=(*target.synonyms, before), replaces=(before,))
    targets = (renamed if t.name == before else t for t in taxonomy.targets.values())
    return Taxonomy({t.name: t for t in targets})


def _build(root: Path, taxonomy: Taxonomy) -> tuple[Cost, int]:
    """Build or renew the data set of a store; the cost, and how many reports it has."""
    store = Store(str(root))
    held = bool(read_holdings(store, DATASET))
    version = publish(store, taxonomy)
    run = _planned(root, version)
    remember(store, run.taxonomy)
    place = StagedStore(str(root), DATASET) if held else store
    write_plan(place, run.plan)
    started = time.process_time()
    read_again = _carry_out(place, run.stages, run.parts)
    cpu_s = time.process_time() - started
    pipeline.cache_clear()
    return Cost(cpu_s, read_again), sum(1 for _ in run.reader.records())


def _planned(root: Path, version: str) -> Pipeline:
    source = input_path(f"{DATASET}/NLMCXR_reports.tgz").parent
    given = BuildSettings(
        dataset=DATASET, store=str(root), source=str(source), taxonomy_version=version
    )
    return pipeline(given)


def _carry_out(place: Store, stages: Mapping[str, Stage], parts: Iterable[Part]) -> int:
    """Run all stages on all parts; gives the studies that were cleaned again."""
    read_again = 0
    for part in parts:
        made: dict[str, ShardResult] = {}
        for name, stage in stages.items():
            made[name] = run_stage(place, stage, part, {n: made[n] for n in stage.reads})
        read_again += made["clean"].manifest.renewed or 0
    return read_again


def _expected(root: Path, old: Taxonomy, new: Taxonomy) -> int:
    store = Store(str(root))
    [holding] = read_holdings(store, DATASET)
    return forecast(store, holding, old, new).read_again


def _recombined(whole: Path, root: Path, reports: int, full_s: float, old: Taxonomy) -> None:
    """Measure on copies of the shards; `full_s` are the CPU seconds of a report's full run."""
    count = multiply(Store(str(whole)), Store(str(root)), reports)
    new = with_synonym(old)
    store = Store(str(root))
    remember(store, old)
    [holding] = read_holdings(store, DATASET)
    started = time.perf_counter()
    cost = forecast(store, holding, old, new)
    print(f"{count:,} reports: forecast of one synonym in {time.perf_counter() - started:.1f} s")
    run = _planned(whole, publish(Store(str(whole)), new))
    started_cpu = time.process_time()
    parts = [m.part for m in holding.current if m.stage == "ingest"]
    given = {m.part: ShardResult(m, skipped=True) for m in holding.current if m.stage == "ingest"}
    place = StagedStore(str(root), DATASET)
    read_again = 0
    for part in parts:
        made = {"ingest": given[part]}
        for name, stage in run.stages.items():
            if name != "ingest":
                made[name] = run_stage(place, stage, part, {n: made[n] for n in stage.reads})
        read_again += made["clean"].manifest.renewed or 0
    cpu_s = time.process_time() - started_cpu
    print(
        f"{count:,} reports: one synonym read {read_again:,} again ({cost.read_again:,} forecast) "
        f"in {cpu_s:.0f} CPU s, {cpu_s / (full_s * count):.2%} of a full run"
    )


def multiply(store: Store, into: Store, reports: int) -> int:
    """Repeat the shards of a store under new study ids until there are so many reports.

    Returns:
        how many there are.
    """
    manifests = read_manifests(store, DATASET)
    parts = sorted({m.part for m in manifests})
    held = sum(m.outputs["studies"].rows for m in manifests if m.stage == "ingest")
    made = copies = 0
    records: dict[str, str] = {}
    while made < reports:
        for part in parts:
            index = copies * len(parts) + part.index
            own = [m for m in manifests if m.part == part]
            records |= _repeat(store, into, own, replace(part, index=index), f"{copies}-")
        made += held
        copies += 1
    [holding] = read_holdings(store, DATASET)
    assert holding.plan is not None
    write_plan(into, replace(holding.plan, records=records))
    return made


def _repeat(
    store: Store, into: Store, manifests: Iterable[Manifest], part: Part, prefix: str
) -> dict[str, str]:
    """Write the shards of a part as those of another one; gives the digest of its records."""
    written: dict[str, str] = {}
    records: dict[str, str] = {}
    waiting = list(manifests)
    while waiting:
        made = next(m for m in waiting if _inputs_of(m) <= written.keys())
        waiting.remove(made)
        outputs = {
            table: write_shard(
                into,
                shard_path(table, part, made.stage),
                table,
                _renumbered(read_shard(store, file), prefix),
            )
            for table, file in made.outputs.items()
        }
        written |= {f"{made.stage}.{table}": file.sha256 for table, file in outputs.items()}
        inputs = {name: written.get(name, digest) for name, digest in made.inputs.items()}
        digest = recipe_digest(made.stage, made.recipe, inputs)
        write_manifest(
            into, replace(made, part=part, outputs=outputs, inputs=inputs, digest=digest)
        )
        if "records" in inputs:
            records[part.name] = inputs["records"]
    return records


def _inputs_of(manifest: Manifest) -> set[str]:
    return {name for name in manifest.inputs if "." in name}


def _renumbered(rows: pa.Table, prefix: str) -> pa.Table:
    place = rows.schema.get_field_index("study_id")
    ids = pc.binary_join_element_wise(prefix, rows["study_id"], "")
    return rows.set_column(place, rows.schema.field(place), ids)


if __name__ == "__main__":
    sys.exit(main())
