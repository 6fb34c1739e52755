"""Snapshots: the versions of a data set, each a list of its files, and a store seen at one.

`snapshots/<data set>/000001.json` lists the plan, the manifests and the shards of a version with
their digests; the one with the highest number is the current version. Files of the current version
lie at their own paths. Of an earlier version, a file that has changed since lies in
`versions/<data set>/`, named by its digest; one that has not is shared.

`storage.switching` makes snapshots.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cached_property

from pydantic import TypeAdapter

from storage.manifests import manifest_path
from storage.plans import Holding, read_holdings
from storage.shards import Count, ShardFile, dataset_folder
from storage.staging import is_of_dataset
from storage.store import Store, StoredFile, StoreError

FOLDER = "snapshots"
POOL = "versions"

KEPT_VERSIONS = 5
"""Versions of a data set that are kept. A taxonomy changes about every week: five are a month, in
which a training ends and a fault of a version is seen."""

_NUMBERED = re.compile(rf"{FOLDER}/([^/]+)/(\d{{6,}})\.json")
_REQUESTS = 16
"""Requests at once to a bucket, whose answer to one takes tens of milliseconds."""
_ASKED_ONE_BY_ONE = 4
"""Files that are looked for in the pool one by one; for more, the pool is listed once."""


@dataclass(frozen=True)
class Snapshot:
    """A version of a data set.

    made_at: ISO 8601, UTC.
    taxonomy: digest of the taxonomy that its tags were made with; empty without tags.
    parent: number of the version that it came after.
    restores: number of the version that was made current again, if that is how it came about.
    files: the plan, the manifests and the shards that have rows; a plan or a manifest has 0 rows.
    """

    dataset: str
    number: Count
    made_at: str
    taxonomy: str
    parent: int | None
    restores: int | None
    files: tuple[ShardFile, ...]

    @cached_property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, by its path."""
        return {file.path: file.sha256 for file in self.files}

    @property
    def shards(self) -> dict[str, str]:
        """The SHA-256 of each shard, by its path."""
        return {file.path: file.sha256 for file in self.files if file.rows}

    @property
    def path(self) -> str:
        """Where the snapshot lives in the store."""
        return _path(self.dataset, self.number)

    def to_json(self) -> bytes:
        """The snapshot as it is stored."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False).encode()


@dataclass(frozen=True)
class SnapshotStore(Store):
    """A store as it is at one version of each data set that has versions; it is only read.

    snapshots: the version of each data set, by the name of its folder.
    """

    snapshots: Mapping[str, Snapshot]

    @property
    def base(self) -> Store:
        """The store itself."""
        return Store(self.root)

    def location(self, path: str) -> str:
        """Where a file of the version lies now."""
        [place] = self.places([path])
        return self.base.location(place)

    def places(self, paths: Sequence[str]) -> list[str]:
        """Where the bytes of some files lie now, below the root.

        A switch moves the files that it replaces; on a disk that has links, those in the pool are
        there as long as the snapshot.
        """
        pooled = {path: place for path in paths if (place := self._pooled(path))}
        if len(pooled) <= _ASKED_ONE_BY_ONE:
            there = {place for place in pooled.values() if self.base.has(place)}
        else:
            there = {place for name in self.snapshots for place in self.base.list(f"{POOL}/{name}")}
        return [pooled[path] if pooled.get(path) in there else path for path in paths]

    def read(self, path: str) -> bytes | None:
        """The bytes of a file of the version, or None when it has no such file."""
        version = self._version(path)
        if version is None:
            return self.base.read(path)
        place = self._pooled(path)
        if place is None:
            return None
        data = self.base.read(place)
        if data is None:
            data = self.base.read(path)
            # A file is put into the pool before another takes its place.
            moved = self.base.read(place) if data is None or self._differs(path, data) else None
            data = data if moved is None else moved
        return data

    def has(self, path: str) -> bool:
        """Whether the version has a file."""
        version = self._version(path)
        return self.base.has(path) if version is None else path in version.digests

    def write(self, path: str, data: bytes) -> None:
        """Write a file that belongs to no version, such as the gallery."""
        self._require_shared(path)
        self.base.write(path, data)

    def delete(self, path: str) -> None:
        """Remove a file that belongs to no version."""
        self._require_shared(path)
        self.base.delete(path)

    def files(self, folder: str, *, recursive: bool = True) -> Sequence[StoredFile]:
        """The files below a folder, sorted by path; of those of a version no age is known."""
        shared = [
            file
            for file in self.base.files(folder, recursive=recursive)
            if self._version(file.path) is None
        ]
        below = f"{folder}/" if folder else ""
        own = [
            StoredFile(path, timedelta(0))
            for snapshot in self.snapshots.values()
            for path in snapshot.digests
            if path.startswith(below) and (recursive or "/" not in path[len(below) :])
        ]
        return sorted([*shared, *own], key=lambda file: file.path)

    def _version(self, path: str) -> Snapshot | None:
        """The version that decides about a path; None for a file that no version has."""
        folders, _, file = path.rpartition("/")
        for name in (folders.rpartition("/")[2], file.removesuffix(".json")):
            snapshot = self.snapshots.get(name)
            if snapshot is not None and is_of_dataset(path, snapshot.dataset):
                return snapshot
        return None

    def _pooled(self, path: str) -> str | None:
        """Where a file of a version lies once it is no longer current."""
        version = self._version(path)
        if version is None or path not in version.digests:
            return None
        return pool_path(version.dataset, path, version.digests[path])

    def _differs(self, path: str, data: bytes) -> bool:
        version = self._version(path)
        return version is None or hashlib.sha256(data).hexdigest() != version.digests[path]

    def _require_shared(self, path: str) -> None:
        if self._version(path) is not None:
            raise AssertionError(f"{path} belongs to a version of a data set, which never changes")


def pool_path(dataset: str, path: str, sha256: str) -> str:
    """Where a file of a data set lies when it is not, or not only, at its own path."""
    return f"{POOL}/{dataset_folder(dataset)}/{sha256}.{path.rpartition('.')[2]}"


def current(store: Store) -> Store:
    """A store at the current version of each data set, as it is when this is called.

    Raises:
        StoreError: if the store cannot be read, or a snapshot is damaged.
    """
    if type(store) is not Store:
        return store  # a view already
    newest: dict[str, int] = {}
    for folder, number in _numbers(store, ""):
        newest[folder] = max(number, newest.get(folder, 0))
    if not newest:
        return store
    found = {name: _read(store, f"{FOLDER}/{name}/{n:06d}.json") for name, n in newest.items()}
    return SnapshotStore(store.root, found)


def versions_of(store: Store) -> list[Snapshot]:
    """The version of each data set that a reader of a store sees, by name."""
    seen = current(store)
    found = seen.snapshots.values() if isinstance(seen, SnapshotStore) else ()
    return sorted(found, key=lambda snapshot: snapshot.dataset)


def open_snapshot(store: Store, dataset: str, number: int | None = None) -> SnapshotStore:
    """A store at one version of a data set, and at the present one of all others.

    Args:
        store: where the data set is.
        dataset: its name.
        number: of the version; the current one, unless given.

    Raises:
        StoreError: if there is no such version.
    """
    return _at(store, [read_snapshot(store, dataset, number)])


def open_snapshots(store: Store, numbers: Mapping[str, int]) -> SnapshotStore:
    """A store at one version of each of some data sets, and at the present one of all others.

    Raises:
        StoreError: if there is no such version.
    """
    return _at(store, [read_snapshot(store, name, number) for name, number in numbers.items()])


def _at(store: Store, chosen: Sequence[Snapshot]) -> SnapshotStore:
    versions = {dataset_folder(s.dataset): s for s in (*versions_of(store), *chosen)}
    return SnapshotStore(store.root, versions)


def snapshot_numbers(store: Store, dataset: str) -> list[int]:
    """The numbers of the versions of a data set, the current one last."""
    folder = dataset_folder(dataset)
    return sorted(number for name, number in _numbers(store, folder) if name == folder)


def read_snapshot(store: Store, dataset: str, number: int | None = None) -> Snapshot:
    """A version of a data set; the current one, unless a number is given.

    Raises:
        StoreError: if there is no such version.
    """
    numbers = snapshot_numbers(store, dataset)
    if not numbers:
        raise StoreError(
            f"{store.root} has no version of {dataset} yet: a `vividmed build` of it that ends "
            "leaves the first"
        )
    wanted = numbers[-1] if number is None else number
    if wanted not in numbers:
        known = ", ".join(map(str, numbers))
        raise StoreError(f"{store.root} has no version {wanted} of {dataset}: it has {known}")
    return _read(store, _path(dataset, wanted))


def whole_files(store: Store, dataset: str) -> tuple[tuple[ShardFile, ...], str] | None:
    """The files of a data set and the digest of its taxonomy; None where it is not whole."""
    holdings = read_holdings(store, dataset)
    if not holdings or holdings[0].plan is None or not holdings[0].is_complete:
        return None
    [holding] = holdings
    return tuple(_files(store, holding)), _taxonomy(holding)


def _files(store: Store, holding: Holding) -> list[ShardFile]:
    documents = [manifest_path(m.stage, m.part) for m in holding.current]
    if holding.plan is not None:
        documents.append(holding.plan.path)
    with ThreadPoolExecutor(1 if store.is_local else _REQUESTS) as requests:
        digests = list(requests.map(lambda path: _digest(store, path), documents))
    shards = [file for m in holding.current for file in m.outputs.values() if file.rows]
    found = [ShardFile(path, sha, 0) for path, sha in zip(documents, digests, strict=True)]
    return sorted([*shards, *found], key=lambda file: file.path)


def _digest(store: Store, path: str) -> str:
    data = store.read(path)
    if data is None:
        raise StoreError(f"{store.location(path)} was removed just now: run the command again")
    return hashlib.sha256(data).hexdigest()


def _taxonomy(holding: Holding) -> str:
    for manifest in holding.current:
        made_by = manifest.recipe.get("engines")
        if isinstance(made_by, dict) and "taxonomy" in made_by:
            return str(made_by["taxonomy"])
    return ""


def _numbers(store: Store, folder: str) -> list[tuple[str, int]]:
    paths = store.list(f"{FOLDER}/{folder}".rstrip("/"), ".json")
    return [(found[1], int(found[2])) for path in paths if (found := _NUMBERED.fullmatch(path))]


def _read(store: Store, path: str) -> Snapshot:
    data = store.read(path)
    try:
        if data is not None:
            return _SNAPSHOT.validate_json(data)
    except ValueError:
        pass
    raise StoreError(
        f"{store.location(path)} is damaged or gone: remove it, and the version before is current"
    )


def _path(dataset: str, number: int) -> str:
    return f"{FOLDER}/{dataset_folder(dataset)}/{number:06d}.json"


_SNAPSHOT = TypeAdapter(Snapshot)
