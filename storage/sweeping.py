"""What earlier runs left in a store: partial files, shards that are no longer planned.

A killed run leaves the file that it was writing; a dataset that is built with other shards leaves
parts beyond its new plan. Both are removed when a run on the dataset has ended well. Nothing but
files that a store writes is ever touched, and of other datasets none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from storage.manifests import FOLDER, manifest_path, read_manifests
from storage.plans import Plan
from storage.schemas import SCHEMAS
from storage.shards import dataset_folder
from storage.store import PARTIAL, Store, StoredFile, StoreError

MEANWHILE = timedelta(hours=1)
"""A younger file may be one that another run is just writing; no shard takes an hour to write."""

_SHARD = re.compile(r"(part-\d{5,})(\.[\w-]+)?\.(parquet|json)")
_PARTIAL = re.compile(r"\.?[\w.~-]+[.-][0-9a-f]{32}")
"""A partial file, or the probe whether a store can be written: a name and a UUID."""


def has_earlier_layout(store: Store, dataset: str = "") -> bool:
    """Whether a store holds a dataset, or any, in folders named `dataset=…`, which are not read."""
    folder = f"/{_earlier_folder(dataset)}" + ("/" if dataset else "")
    return any(folder in path for path in store.list(FOLDER))


def nothing_held(store: Store, dataset: str = "") -> StoreError:
    """What a reader of a store without a dataset, or without any, is told."""
    if has_earlier_layout(store, dataset):
        return StoreError(
            f"{store.root} was written by an earlier version of VividMed, whose folders are not "
            "read any more: `vividmed build` makes its data sets anew"
        )
    what = f"no {dataset}" if dataset else "nothing"
    command = f"vividmed build {dataset}".rstrip()
    return StoreError(f"{store.root} holds {what} yet: run `{command}` first")


def sweep(store: Store, plan: Plan) -> list[str]:
    """Remove what earlier runs on the plan's dataset left; the paths of the removed files.

    Raises:
        StoreError: if the store cannot be listed or written.
    """
    removed = [*_partial_files(store), *_earlier_layout(store, plan), *_unlisted(store, plan)]
    for path in removed:
        store.delete(path)
    return removed


def _partial_files(store: Store) -> Iterator[str]:
    for file in (*store.files(PARTIAL), *store.files("", recursive=False)):
        name = file.path.rsplit("/", maxsplit=1)[-1]
        if file.age > MEANWHILE and _PARTIAL.fullmatch(name):
            yield file.path


def _earlier_layout(store: Store, plan: Plan) -> Iterator[str]:
    for folder in (*SCHEMAS, FOLDER):
        for file in store.files(folder):
            *folders, name = file.path.split("/")
            if _earlier_folder(plan.dataset) in folders and (
                _SHARD.fullmatch(name) or _PARTIAL.fullmatch(name)
            ):
                yield file.path


def _unlisted(store: Store, plan: Plan) -> Iterator[str]:
    """Shards and manifests of parts that are not planned, and shards that no manifest lists."""
    listed = set()
    for manifest in read_manifests(store, plan.dataset):
        listed.add(manifest_path(manifest.stage, manifest.part))
        listed.update(shard.path for shard in manifest.outputs.values())
    for file in _files_of(store, plan.dataset):
        name = file.path.rsplit("/", maxsplit=1)[-1]
        found = _SHARD.fullmatch(name)
        if found is None:
            stale = _PARTIAL.fullmatch(name) is not None and file.age > MEANWHILE
        else:
            left = file.path not in listed and file.age > MEANWHILE
            stale = left or found[1] not in plan.records
        if stale:
            yield file.path


def _files_of(store: Store, dataset: str) -> Iterator[StoredFile]:
    folder = dataset_folder(dataset)
    for table in SCHEMAS:
        yield from store.files(f"{table}/{folder}")
    for file in store.files(FOLDER):
        if file.path.split("/")[2:-1] == [folder]:
            yield file


def _earlier_folder(dataset: str) -> str:
    return f"dataset={dataset}"
