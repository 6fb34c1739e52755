"""Manifests: what made a shard, what it holds and what was rejected.

A manifest is written after the files that it lists. Its digest covers the stage's recipe (engine
fingerprint, settings, the part of the taxonomy that is read) and the SHA-256 of every input, so
equal digests mean equal output, and a shard whose manifest carries the digest asked for needs no
work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from storage.funnel import FunnelStep
from storage.shards import Count, Part, ShardFile, dataset_folder, is_intact, shard_path
from storage.store import Store

FOLDER = "manifests"
_REQUESTS = 16
"""Requests at once to a bucket, whose answer to one takes tens of milliseconds."""


@dataclass(frozen=True)
class Manifest:
    """What one stage did on one part.

    `rows_in == rows_out + sum(rejects.values())`, counted in `unit`; a stage that turns one
    report into many phrases still counts reports. `outputs` has the rows of every file,
    `discarded` the rejected proposals of engines, `usage` the requests, tokens and time they took,
    `funnel` what the rules of a data set's selection took out. `renewed` counts the studies that
    were read again after a change of the taxonomy, the others being taken over; None where the
    stage read all of them. `seconds` and `usage` are of what was read. `taxonomy` is the digest
    of the run's taxonomy, of which the recipe has only the parts that the stage reads.
    """

    stage: str
    part: Part
    digest: str
    recipe: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, ShardFile]
    unit: str
    rows_in: Count
    rows_out: Count
    rejects: Mapping[str, Count] = field(default_factory=dict)
    discarded: Mapping[str, Count] = field(default_factory=dict)
    usage: Mapping[str, Count] = field(default_factory=dict)
    funnel: tuple[FunnelStep, ...] = ()
    renewed: Count | None = None
    taxonomy: str = ""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    finished_at: str = ""


def manifest_path(stage: str, part: Part) -> str:
    """Where the manifest of a stage on a part lives in the store."""
    return f"{FOLDER}/{stage}/{part.folder}/{part.name}.json"


def recipe_digest(stage: str, recipe: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """SHA-256 over everything that decides the stage's output on its inputs."""
    canonical = json.dumps(
        {"stage": stage, "recipe": recipe, "inputs": inputs}, sort_keys=True, ensure_ascii=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Write the manifest of a stage's files, which must be in place already."""
    document = json.dumps(asdict(manifest), indent=1, sort_keys=True, ensure_ascii=False)
    store.write(manifest_path(manifest.stage, manifest.part), document.encode())


def read_manifest(store: Store, stage: str, part: Part) -> Manifest | None:
    """The manifest of a stage on a part, or None when there is none that can be read."""
    data = store.read(manifest_path(stage, part))
    return None if data is None else _parse(data, manifest_path(stage, part))


def read_manifests(store: Store, dataset: str = "") -> list[Manifest]:
    """Every readable manifest of the store, or of one dataset, ordered by stage and part."""
    paths = manifest_paths(store, dataset)
    with ThreadPoolExecutor(1 if store.is_local else _REQUESTS) as requests:
        contents = list(requests.map(store.read, paths))
    found = [_parse(data, p) for data, p in zip(contents, paths, strict=True) if data is not None]
    return sorted(
        (manifest for manifest in found if manifest is not None),
        key=lambda m: (m.part.dataset, m.stage, m.part),
    )


def manifest_paths(store: Store, dataset: str = "", stage: str = "") -> list[str]:
    """Paths of the manifests of the store, or of one dataset, or of one stage, readable or not."""
    folder = f"{FOLDER}/{stage}" if stage else FOLDER
    paths = store.list(folder, ".json")
    return [p for p in paths if not dataset or p.split("/")[2] == dataset_folder(dataset)]


def stage_order(manifests: Iterable[Manifest]) -> list[str]:
    """The stages of some manifests, each after those whose shards it reads, else by name."""
    reads: dict[str, set[str]] = {}
    for manifest in manifests:
        inputs = {name.split(".")[0] for name in manifest.inputs}
        reads.setdefault(manifest.stage, set()).update(inputs)
    ordered: list[str] = []
    while left := reads.keys() - set(ordered):
        # Manifests of several versions may read each other; by name, then, rather than never.
        ordered += sorted(stage for stage in left if not reads[stage] & left) or sorted(left)
    return ordered


def is_complete(store: Store, manifest: Manifest) -> bool:
    """Whether every file that the manifest lists is there, byte for byte."""
    return all(is_intact(store, shard) for shard in manifest.outputs.values())


def _parse(data: bytes, path: str) -> Manifest | None:
    """The manifest that a file holds; None for one that is damaged or was edited.

    Such a manifest proves nothing: its shard is made again.
    """
    try:
        manifest = _MANIFEST.validate_json(data, strict=True)
    except ValueError:
        return None
    balanced = manifest.rows_in == manifest.rows_out + sum(manifest.rejects.values())
    in_place = manifest_path(manifest.stage, manifest.part) == path and all(
        file.path == shard_path(table, manifest.part, manifest.stage)
        for table, file in manifest.outputs.items()
    )
    return manifest if balanced and in_place and manifest.outputs else None


_MANIFEST = TypeAdapter(Manifest)
