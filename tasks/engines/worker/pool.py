"""The workers of one engine: one on each GPU, started when they are needed, again when lost."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.engines.metering import BusyClock, consume
from tasks.engines.worker.errors import WorkerError, WorkerLostError, WorkerRefusedError
from tasks.engines.worker.process import Limits, WorkerCommand, WorkerProcess

Arrays = Mapping[str, Sequence[NDArray[Any]]]
"""Arrays that a request sends, by the key of the message that gets the names of their files."""

LOSSES_IN_A_ROW = 5
"""Requests that may be lost one after the other; then the environment is at fault, not a study."""

_PAUSE_S = 5.0
"""Seconds before a worker that did not start again is started once more; a driver frees the memory
of a process that was killed within a few."""


class WorkerPool:
    """Hands each request to a worker that is free; as many at a time as there are workers.

    Safe to use from several threads: the files of one shard's request are written, and another's
    answer is encoded, while the workers are at work for the shards of other threads.
    """

    def __init__(
        self, command: WorkerCommand, limits: Limits, gpus: Sequence[int | None] = (None,)
    ) -> None:
        """Prepare the workers; none is started yet.

        Args:
            command: what a worker runs.
            limits: when a worker is ended.
            gpus: the CUDA device of each worker; None: one on the CPU.
        """
        self._command = command
        self._limits = limits
        self._free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._slots = [_Slot(gpu) for gpu in gpus]
        for slot in self._slots:
            self._free.put(slot)
        self._busy = BusyClock()
        self._lock = threading.Lock()
        self._losses = 0
        self._scratch = Path(tempfile.mkdtemp(prefix=f"vividmed-{command.name}-"))
        self._numbers = count(1)
        # Ends the workers with the pool, and at the latest with the process.
        weakref.finalize(self, _end, self._slots, self._scratch)

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self._slots)

    def close(self) -> None:
        """End the workers; a later request starts them again."""
        _stop_all(self._slots)

    def ask(self, request: Mapping[str, Any], arrays: Arrays, *, retry: bool = True) -> Reply:
        """The answer of one worker.

        A request that was lost with its worker is sent once more, to a new one.

        Args:
            request: the message, less the arrays.
            arrays: what it sends of arrays; they are written before a worker is free.
            retry: whether to send it a second time.

        Raises:
            WorkerLostError: if the worker was lost, the second time too.
            WorkerRefusedError: if the worker failed at the request.
            WorkerError: if no worker can be started, or requests are lost one after the other.
            RunCancelledError: if the run has ended.
        """
        with self._files(arrays) as names:
            for is_last in (False, True) if retry else (True,):
                try:
                    reply = self._ask_once({**request, **names})
                except WorkerRefusedError:
                    self._losses = 0
                    raise
                except WorkerLostError as lost:
                    if is_last:
                        self._count_loss(lost)
                        raise
                else:
                    self._losses = 0
                    return reply
        raise AssertionError("one of the tries answers or raises")

    def _ask_once(self, request: Mapping[str, Any]) -> Reply:
        with self._taken() as slot:
            worker = slot.worker
            if worker is None or not worker.lives:
                if worker is not None:
                    worker.stop()
                slot.worker = None  # if no new one starts, the old one is not asked again
                slot.worker = worker = self._started(slot, is_again=worker is not None)
            try:
                with self._busy.running():
                    answer = worker.ask(request)
            except WorkerLostError:
                worker.stop()
                consume(workers_lost=1)
                raise
            return Reply(answer, self._scratch)

    def _started(self, slot: _Slot, *, is_again: bool) -> WorkerProcess:
        try:
            return self._process(slot)
        except WorkerError:
            if not is_again:
                raise
        # It has worked before: what it needs, such as a GPU's memory, may be free a little later.
        time.sleep(_PAUSE_S)
        return self._process(slot)

    def _process(self, slot: _Slot) -> WorkerProcess:
        return WorkerProcess(self._command, self._limits, slot.gpu, self._scratch)

    @contextmanager
    def _files(self, arrays: Arrays) -> Iterator[dict[str, list[str]]]:
        """The names of the files of the arrays, which are there as long as the block runs."""
        number = next(self._numbers)
        names = {
            key: [f"request-{number}-{key}-{i}.npy" for i in range(len(several))]
            for key, several in arrays.items()
        }
        try:
            for key, several in arrays.items():
                for name, array in zip(names[key], several, strict=True):
                    np.save(self._scratch / name, array)
            yield names
        finally:
            for several_names in names.values():
                for name in several_names:
                    (self._scratch / name).unlink(missing_ok=True)

    @contextmanager
    def _taken(self) -> Iterator[_Slot]:
        slot = self._free.get()
        try:
            yield slot
        finally:
            self._free.put(slot)

    def _count_loss(self, lost: WorkerLostError) -> None:
        with self._lock:
            self._losses += 1
            if self._losses >= LOSSES_IN_A_ROW:
                raise WorkerError(
                    f"the worker of {self._command.name} was lost at {self._losses} requests in a "
                    f"row; the last time: {lost.detail}"
                )


class _Slot:
    """The place of a worker: its GPU, and the process that works there now."""

    def __init__(self, gpu: int | None) -> None:
        self.gpu = gpu
        self.worker: WorkerProcess | None = None


class Reply:
    """A worker's answer, and its arrays, which are mapped from their files when asked for."""

    def __init__(self, message: Mapping[str, Any], scratch: Path) -> None:
        self.message = message
        # Mapped here, before the worker can end and its folder go; the files are not needed then.
        self._arrays = {}
        for answer in message.get("answers", ()):
            if isinstance(answer, dict) and isinstance(name := answer.get("mask"), str):
                file = scratch / Path(name).name
                self._arrays[name] = _mapped(file)
                file.unlink(missing_ok=True)

    def array(self, name: str) -> NDArray[Any]:
        """The array of a file that the message names."""
        return self._arrays[name]


def _mapped(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise WorkerRefusedError(
            "worker_bad_answer", f"the worker's file {file.name} holds no array: {error}"
        ) from error
    return array


def _end(slots: Sequence[_Slot], scratch: Path) -> None:
    _stop_all(slots)
    shutil.rmtree(scratch, ignore_errors=True)


def _stop_all(slots: Sequence[_Slot]) -> None:
    for slot in slots:
        worker, slot.worker = slot.worker, None
        if worker is not None:
            worker.stop()
