"""One run at a time changes a data set: who does says so in `locks/<data set>.json`.

A lock is a lease that its holder renews. On a local disk it is made in one step. A bucket has no
such step: the later of two runs that write it within a moment holds it, and the earlier one sees
that when it looks again, at the latest before its version becomes current.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import psutil
from pydantic import TypeAdapter

from storage.shards import dataset_folder
from storage.store import PARTIAL, Store, StoreError

FOLDER = "locks"

_RENEWED_EVERY_S = 60.0
_LEFT = timedelta(minutes=10)
"""A lock of another machine that was not renewed for so long is of a run that is gone: ten renewals
are not lost to a pause of a machine or a network that a run survives."""

_SETTLING_S = 2.0
"""How long a run waits before it looks whether another one wrote the lock of a bucket after it: a
small upload takes well under a second."""

_SAME_START_SECONDS = 5.0
"""The system tells a start by its clock, which may be set meanwhile."""


@dataclass(frozen=True)
class Process:
    """A process of some machine.

    started: its start in seconds since 1970. Ids are used again, most of all in containers; an id
        with its start is not.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def this(cls) -> Process:
        """The process that asks."""
        own = psutil.Process()
        return cls(socket.gethostname(), own.pid, own.create_time())

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, one of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_gone(self) -> bool:
        """Whether it has ended; of another machine nothing is known."""
        if not self.is_here:
            return False
        try:
            apart: float = abs(psutil.Process(self.pid).create_time() - self.started)
        except psutil.NoSuchProcess:
            return True
        return apart > _SAME_START_SECONDS


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    since: ISO 8601, UTC.
    token: tells apart two holds of one process.
    """

    process: Process
    since: str
    token: str


class Lock:
    """The lock of a data set, held by this process."""

    def __init__(self, store: Store, dataset: str, holder: Holder) -> None:
        self._store = store
        self._dataset = dataset
        self._holder = holder
        self._ended = threading.Event()
        self._renewal = threading.Thread(target=self._renew, daemon=True)
        self._renewal.start()

    def require(self) -> None:
        """Check that the lock is still held.

        Raises:
            StoreError: if another run has taken it, as after a pause of this machine.
        """
        holder = _holder(self._store, self._dataset)
        if holder != self._holder:
            raise StoreError(
                f"another run has taken over {self._dataset} in {self._store.root} meanwhile: what "
                "this one staged is left to it"
            )

    def release(self) -> None:
        """Let the next run go on."""
        self._ended.set()
        self._renewal.join()
        with suppress(StoreError):  # a lock that stays is taken over
            if _holder(self._store, self._dataset) == self._holder:
                self._store.delete(_path(self._dataset))

    def _renew(self) -> None:
        while not self._ended.wait(_RENEWED_EVERY_S):
            with suppress(StoreError):  # the next renewal may go through
                if _holder(self._store, self._dataset) != self._holder:
                    return
                self._store.write(_path(self._dataset), _document(self._holder))


@contextmanager
def hold(store: Store, dataset: str) -> Iterator[Lock]:
    """Hold the lock of a data set.

    Raises:
        StoreError: if another run holds it, or the store cannot be written.
    """
    holder = Holder(
        Process.this(), datetime.now(UTC).isoformat(timespec="seconds"), uuid.uuid4().hex
    )
    lock = _acquire(store, dataset, holder)
    try:
        yield lock
    finally:
        lock.release()


def _acquire(store: Store, dataset: str, holder: Holder) -> Lock:
    path = _path(dataset)
    while not (store.is_local and _create(store, path, _document(holder))):
        _refuse_if_held(store, dataset)
        store.write(path, _document(holder))
        time.sleep(_SETTLING_S)
        if _holder(store, dataset) == holder:
            break
    return Lock(store, dataset, holder)


def _create(store: Store, path: str, document: bytes) -> bool:
    """Make the file of a lock on a local disk, unless there is one; of two runs one makes it."""
    made = f"{PARTIAL}/{PurePosixPath(path).name}.{uuid.uuid4().hex}"
    Path(store.location(path)).parent.mkdir(parents=True, exist_ok=True)
    store.write(made, document)
    try:
        os.link(store.location(made), store.location(path))
    except OSError:  # there is one, or the disk has no links
        return False
    finally:
        Path(store.location(made)).unlink(missing_ok=True)
    return True


def _refuse_if_held(store: Store, dataset: str) -> None:
    holder = _holder(store, dataset)
    ages = [file.age for file in store.files(FOLDER) if file.path == _path(dataset)]
    if holder is None or not ages or holder.process.is_gone:
        return
    if not holder.process.is_here and ages[0] > _LEFT:
        return
    process = holder.process
    raise StoreError(
        f"{dataset} in {store.root} is being changed by process {process.pid} on {process.host} "
        f"since {holder.since}: wait until it has ended, or end it"
    )


def _holder(store: Store, dataset: str) -> Holder | None:
    """Who holds the lock; None where nobody does, or the file says nothing."""
    data = store.read(_path(dataset))
    try:
        return None if data is None else _HOLDER.validate_json(data)
    except ValueError:
        return None


def _document(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _path(dataset: str) -> str:
    return f"{FOLDER}/{dataset_folder(dataset)}.json"


_HOLDER = TypeAdapter(Holder)
