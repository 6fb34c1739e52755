"""A data set changes from one version to another at once, and back.

The file `snapshots/<data set>/<number>.json` decides: before it is written, all files of the new
version that differ lie in the pool, and so do those that they replace. Only then are the files put
at their own paths, where programs read a table by its folder. Each step may be done again: what a
killed process has left of a switch is completed by the next one on the data set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pydantic import TypeAdapter

from storage.locks import hold
from storage.shards import ShardFile, dataset_folder
from storage.snapshots import (
    FOLDER,
    KEPT_VERSIONS,
    POOL,
    Snapshot,
    pool_path,
    read_snapshot,
    snapshot_numbers,
    whole_files,
)
from storage.staging import StagedStore
from storage.store import Store, StoreError


@dataclass(frozen=True)
class _Switch:
    """A switch under way.

    snapshot: the version that becomes current.
    removed: files that are taken away from their own paths.
    """

    snapshot: Snapshot
    removed: tuple[str, ...]


@contextmanager
def renewal(store: Store, dataset: str, keep: int = KEPT_VERSIONS) -> Iterator[Store]:
    """The store that a build of a data set writes to, locked against a second build.

    It is the store itself, until the data set is whole for the first time; then a staging, from
    which the store is switched to the new version when the block ends well.

    Args:
        store: where the data set is or will be.
        dataset: its name.
        keep: versions to keep, with the current one.

    Raises:
        StoreError: if another run works on the data set, or the store cannot be read or written.
    """
    with hold(store, dataset) as lock:
        complete_switch(store, dataset)
        former = record(store, dataset)
        if former is None:
            yield store
            lock.require()
            record(store, dataset)
            return
        staged = StagedStore(store.root, dataset)
        staged.begin(former.number)
        yield staged
        lock.require()
        switch(staged)
        _prune(store, dataset, keep)


def record(store: Store, dataset: str) -> Snapshot | None:
    """The current version of a data set; its first, where it became whole without one.

    None where it is not whole yet.
    """
    numbers = snapshot_numbers(store, dataset)
    if numbers:
        return read_snapshot(store, dataset, numbers[-1])
    whole = whole_files(store, dataset)
    if whole is None:
        return None
    files, taxonomy = whole
    first = Snapshot(dataset, 1, _now(), taxonomy, parent=None, restores=None, files=files)
    _share(store, first)
    store.write(first.path, first.to_json())
    return first


def switch(staged: StagedStore) -> Snapshot | None:
    """Make the staged version of a data set the current one, and remove the staging.

    Returns:
        The current version; the former one, if nothing was staged; None if what is staged is not
        whole, and stays.

    Raises:
        StoreError: if the store cannot be read or written. The switch is then completed by the
            next run on the data set, or has not begun.
    """
    store, dataset = staged.base, staged.dataset
    former = read_snapshot(store, dataset)
    written, deleted = staged.staged(), staged.deleted()
    if not written and not deleted:
        staged.discard()
        return former
    whole = whole_files(staged, dataset)
    if whole is None:
        return None
    files, taxonomy = whole
    new = Snapshot(dataset, former.number + 1, _now(), taxonomy, former.number, None, files)
    if new.files == former.files and not new.digests.keys() & written.keys():
        for path in {*deleted} - new.digests.keys():  # what no version has
            store.delete(path)
        staged.discard()
        return former
    store.copy(
        [
            (place, pool_path(dataset, path, new.digests[path]))
            for path, place in written.items()
            if path in new.digests
        ]
    )
    _change(store, former, new, deleted)
    staged.discard()
    return new


def rollback(store: Store, dataset: str, number: int | None = None) -> Snapshot:
    """Make an earlier version of a data set current again, as a version of its own.

    Args:
        store: where the data set is.
        dataset: its name.
        number: of the version; the one before the current one, unless given.

    Raises:
        StoreError: if there is no such version, a file of it is gone, or another run works on the
            data set.
    """
    with hold(store, dataset) as lock:
        complete_switch(store, dataset)
        former = read_snapshot(store, dataset)
        wanted = former.parent if number is None else number
        if wanted is None:
            raise StoreError(f"{dataset} has one version alone: there is none to go back to")
        earlier = read_snapshot(store, dataset, wanted)
        new = Snapshot(
            dataset,
            former.number + 1,
            _now(),
            earlier.taxonomy,
            parent=former.number,
            restores=wanted,
            files=earlier.files,
        )
        lock.require()
        _change(store, former, new, ())
        return new


def prune(store: Store, dataset: str, keep: int = KEPT_VERSIONS) -> list[int]:
    """Remove the oldest versions of a data set, and the files that no other version has.

    Args:
        store: where the data set is.
        dataset: its name.
        keep: versions to keep, with the current one; at least 1.

    Returns:
        The numbers of the removed versions.

    Raises:
        StoreError: if another run works on the data set, or the store cannot be written.
    """
    with hold(store, dataset):
        complete_switch(store, dataset)
        return _prune(store, dataset, keep)


def complete_switch(store: Store, dataset: str) -> None:
    """Go on with a switch that a killed process has left, if there is one."""
    data = store.read(_journal(dataset))
    if data is None:
        return
    change = _SWITCH.validate_json(data)
    new = change.snapshot
    store.write(new.path, new.to_json())
    pool = set(store.list(f"{POOL}/{dataset_folder(dataset)}"))
    store.copy(
        [
            (place, file.path)
            for file in new.files
            if (place := _pooled(new, file)) in pool and not store.is_shared(place, file.path)
        ]
    )
    for path in change.removed:
        store.delete(path)
    store.delete(_journal(dataset))
    _tidy(store, dataset)


def _change(store: Store, former: Snapshot, new: Snapshot, deleted: list[str] | tuple[()]) -> None:
    """Switch from a version to another, whose own files are in the pool or in place."""
    pool = set(store.list(f"{POOL}/{dataset_folder(new.dataset)}"))
    changed = [file for file in new.files if former.digests.get(file.path) != file.sha256]
    for file in changed:
        if _pooled(new, file) not in pool:
            raise StoreError(
                f"version {new.restores or new.number} of {new.dataset} lacks "
                f"{store.location(_pooled(new, file))}: choose another one"
            )
    left = [file for file in former.files if new.digests.get(file.path) != file.sha256]
    moves = [(f.path, _pooled(former, f)) for f in left if _pooled(former, f) not in pool]
    store.copy([(path, place) for path, place in moves if store.has(path)])
    gone = {*deleted, *former.digests} - new.digests.keys()
    document = asdict(_Switch(new, tuple(sorted(gone))))
    store.write(_journal(new.dataset), json.dumps(document, ensure_ascii=False).encode())
    complete_switch(store, new.dataset)


def _prune(store: Store, dataset: str, keep: int) -> list[int]:
    removed = snapshot_numbers(store, dataset)[: -max(keep, 1)]
    for number in removed:
        store.delete(read_snapshot(store, dataset, number).path)
    _tidy(store, dataset)
    return removed


def _tidy(store: Store, dataset: str) -> None:
    """Remove the files of the pool that no version needs, and share those of the current one.

    Those of the current version lie at their own paths: in the pool they stay where they cost no
    room, which they do in a copy of a store that was made without its links.
    """
    versions = [read_snapshot(store, dataset, n) for n in snapshot_numbers(store, dataset)]
    newest = versions[-1]
    needed = {
        _pooled(version, file)
        for version in versions
        for file in version.files
        if newest.digests.get(file.path) != file.sha256
    }
    here = ((_pooled(newest, file), file.path) for file in newest.files)
    needed |= {place for place, path in here if store.is_shared(place, path)}
    for path in store.list(f"{POOL}/{dataset_folder(dataset)}"):
        if path not in needed:
            store.delete(path)
    _share(store, newest)


def _share(store: Store, current: Snapshot) -> None:
    """Let the current version's files be in the pool too, where that costs no room.

    A reader that began before a switch then needs no file at a path that the switch changes.
    """
    store.share([(file.path, _pooled(current, file)) for file in current.files])


def _pooled(snapshot: Snapshot, file: ShardFile) -> str:
    return pool_path(snapshot.dataset, file.path, file.sha256)


def _journal(dataset: str) -> str:
    return f"{FOLDER}/{dataset_folder(dataset)}/switch.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


_SWITCH = TypeAdapter(_Switch)
