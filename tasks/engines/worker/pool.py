"""The workers of one engine: one on each GPU, started when they are needed, again when lost."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.engines.metering import BusyClock, consume
from tasks.engines.worker.errors import WorkerError, WorkerLostError, WorkerRefusedError
from tasks.engines.worker.process import Limits, WorkerCommand, WorkerProcess

Arrays = Mapping[str, NDArray[Any]]
"""Arrays of a message by the name of their file in the scratch folder, without its ending."""

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
        # Ends the workers with the pool, and at the latest with the process.
        weakref.finalize(self, _stop_all, self._slots)

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
            request: the message, with the names of the arrays' files.
            arrays: what those files hold.
            retry: whether to send it a second time.

        Raises:
            WorkerLostError: if the worker was lost, the second time too.
            WorkerRefusedError: if the worker failed at the request.
            WorkerError: if no worker can be started, or requests are lost one after the other.
            RunCancelledError: if the run has ended.
        """
        for is_last in (False, True) if retry else (True,):
            try:
                reply = self._ask_once(request, arrays)
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

    def _ask_once(self, request: Mapping[str, Any], arrays: Arrays) -> Reply:
        with self._taken() as slot:
            worker = slot.worker
            if worker is None or not worker.lives:
                if worker is not None:
                    worker.stop()
                slot.worker = None  # if no new one starts, the old one is not asked again
                slot.worker = worker = self._started(slot, is_again=worker is not None)
            try:
                with _files(worker.scratch, arrays), self._busy.running():
                    answer = worker.ask(request)
            except WorkerLostError:
                worker.stop()
                consume(workers_lost=1)
                raise
            return Reply(answer, worker.scratch)

    def _started(self, slot: _Slot, *, is_again: bool) -> WorkerProcess:
        try:
            return WorkerProcess(self._command, self._limits, slot.gpu)
        except WorkerError:
            if not is_again:
                raise
        # It has worked before: what it needs, such as a GPU's memory, may be free a little later.
        time.sleep(_PAUSE_S)
        return WorkerProcess(self._command, self._limits, slot.gpu)

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


@contextmanager
def _files(scratch: Path, arrays: Arrays) -> Iterator[None]:
    """The arrays as files in the scratch folder, as long as the block runs."""
    files = [scratch / f"{name}.npy" for name in arrays]
    try:
        for file, array in zip(files, arrays.values(), strict=True):
            try:
                np.save(file, array)
            except FileNotFoundError:
                break  # the worker has ended and its folder is gone, which `ask` tells
        yield
    finally:
        for file in files:
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _stop_all(slots: Sequence[_Slot]) -> None:
    for slot in slots:
        worker, slot.worker = slot.worker, None
        if worker is not None:
            worker.stop()
