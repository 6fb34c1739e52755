"""One worker process: started, spoken to by JSON lines, watched, ended.

The other side is `scripts/vividmed_worker.py`; `docs/worker-engines.md` describes the messages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any

import psutil

from storage.inputs import home
from tasks.engines import run_with_parent
from tasks.engines.cancellation import cancellable_result
from tasks.engines.worker.errors import WorkerError, WorkerLostError, WorkerRefusedError

PROTOCOL = 1
"""Version of the protocol that both sides must speak."""

_NUMBERS = count(1)
"""Of requests; no two of this process have the same, whichever worker they go to."""

_LOOK_S = 0.25
"""Seconds between two looks at a worker's memory and at the clock."""

_LONGEST_LINE = 64 << 20
"""Bytes of one message: 300 boxes of 100 films take 3 MB, and arrays are no part of a message."""

_END_S = 5.0
"""Seconds that a worker has to end by itself once its input is closed."""

_LINES_QUOTED = 2
_LONGEST_QUOTE = 300
_LOG_BYTES_READ = 20_000

_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "LD_PRELOAD")
"""Variables of this process's Python that another Python must not get."""

_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONNOUSERSITE": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}
"""Nothing is fetched from a model hub behind the user's back, and no statistics are sent."""


@dataclass(frozen=True)
class Limits:
    """When a worker is ended.

    start_s: seconds until it is ready; weights of some GB from a network drive take minutes.
    request_s: seconds for one request.
    silent_s: seconds without a sign of life; the worker gives one every 2 s.
    memory_bytes: resident memory of the process and all that it has started; None: no limit.
    """

    start_s: float = 900.0
    request_s: float = 1800.0
    silent_s: float = 180.0
    memory_bytes: int | None = None


@dataclass(frozen=True)
class WorkerCommand:
    """How a worker is started.

    name: of the engine, for messages and the name of the log.
    python: the interpreter of the engine's own environment.
    script: what it runs.
    settings: what the engine is told of its configuration, as JSON values.
    weights: files and folders whose digests the worker must report as given here.
    versions: of packages, as the worker must report them.
    """

    name: str
    python: Path
    script: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


class WorkerProcess:
    """A worker that this process started; takes one request at a time.

    log: the file of what the worker writes to standard error.
    """

    def __init__(
        self, command: WorkerCommand, limits: Limits, gpu: int | None, scratch: Path
    ) -> None:
        """Start it and wait until it has loaded its weights.

        Args:
            command: what to start.
            limits: when to end it.
            gpu: index of the one CUDA device that it sees, among those that this process sees;
                None: it works on the CPU.
            scratch: the folder for arrays, which it may share with other workers.

        Raises:
            WorkerError: if it does not start, or is not what the command says.
            RunCancelledError: if the run has ended.
        """
        self._command = command
        self._limits = limits
        self.log = _new_log(command.name)
        self._scratch = scratch
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._why: tuple[str, str] | None = None
        self._heard = time.monotonic()
        self._awaited: tuple[int, float] = 0, self._heard + limits.start_s
        self._ready: Future[Mapping[str, Any]] = Future()
        self._pending: Future[Mapping[str, Any]] | None = self._ready
        self._guard, self._requests, self._replies = self._launch(gpu)
        for work in (self._listen, self._watch):
            threading.Thread(target=work, name=f"worker-{command.name}", daemon=True).start()
        device = "cpu" if gpu is None else "cuda"
        self._send(
            {
                "type": "start",
                "protocol": PROTOCOL,
                "scratch": str(self._scratch),
                "weights": list(command.weights),
                "packages": list(command.versions),
                "settings": {**command.settings, "device": device},
            }
        )
        try:
            self._check(cancellable_result(self._ready))
        except WorkerLostError as lost:
            self.stop()
            raise WorkerError(
                f"the worker of {command.name} did not start: {lost.detail}"
            ) from None
        except BaseException:
            self.stop()
            raise

    @property
    def lives(self) -> bool:
        """Whether it can take a request."""
        return not self._ended.is_set()

    def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the worker answers; of arrays, messages name the files in the scratch folder.

        What a worker that is lost has left there of its answer is removed.

        Raises:
            WorkerLostError: if it ends, or has to be ended, before it answers.
            WorkerRefusedError: if it failed at the request.
            RunCancelledError: if the run has ended; the worker is then ended too.
        """
        number = next(_NUMBERS)
        pending: Future[Mapping[str, Any]] = Future()
        with self._lock:
            if self._why is not None:
                raise WorkerLostError(*self._why)
            self._pending = pending
            self._awaited = number, time.monotonic() + self._limits.request_s
        self._send({"type": "request", "id": number, **request})
        try:
            return cancellable_result(pending)
        except WorkerRefusedError:
            raise
        except BaseException:
            self.stop(grace_s=0)  # lost, or still at work on what nobody waits for
            for file in self._scratch.glob(f"answer-{number}-*.npy"):
                file.unlink(missing_ok=True)
            raise

    def stop(self, grace_s: float = _END_S) -> None:
        """End the process, and all that it has started, and wait until it is gone."""
        with suppress(OSError):
            self._requests.close()
        with suppress(subprocess.TimeoutExpired):
            if grace_s:
                self._guard.wait(grace_s)
        self._end()
        self._guard.wait()

    def _launch(self, gpu: int | None) -> tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]:
        """The process that ends the worker when this one ends, and both ends of the line."""
        command = self._command
        theirs, ours = os.pipe()
        guard = [sys.executable, os.fspath(Path(run_with_parent.__file__))]
        guard += ["--stdin", str(theirs), "--remove", os.fspath(self._scratch)]
        try:
            with self.log.open("wb") as errors:
                process = subprocess.Popen(
                    [*guard, os.fspath(command.python), os.fspath(command.script)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    pass_fds=(theirs,),
                    env=_environment(gpu),
                    start_new_session=True,  # Ctrl-C is for the run, which then ends the worker
                )
        finally:
            os.close(theirs)
        assert process.stdout is not None  # noqa: S101 for the type checker
        return process, os.fdopen(ours, "wb"), process.stdout

    def _send(self, message: Mapping[str, Any]) -> None:
        # A worker that has ended is found out by `_listen`, with its last words.
        with suppress(OSError, ValueError):
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()

    def _check(self, ready: Mapping[str, Any]) -> None:
        """Compare what the worker has loaded with what its answers will be recorded under."""
        for what in ("versions", "weights"):
            expected = dict(getattr(self._command, what))
            told = ready.get(what)
            if told != expected:
                raise WorkerError(
                    f"the worker of {self._command.name} reports other {what} than were found "
                    f"before it started: {told} in place of {expected}; run the command again"
                )

    def _listen(self) -> None:
        """Take the worker's messages until it ends."""
        try:
            for line in _lines(self._replies):
                self._heard = time.monotonic()
                message = _message(line)
                if message is None:
                    self._note(f"this line is no message of the protocol: {line[:200]!r}")
                else:
                    self._take(message)
        except _LineTooLongError:
            limit = _LONGEST_LINE >> 20
            self._lose("worker_bad_answer", f"it sent a message of more than {limit} MiB")
        self._guard.wait()
        self._lose("worker_crashed", _exit_in_words(self._guard.returncode))
        self._ended.set()
        self._fail_pending()

    def _take(self, message: Mapping[str, Any]) -> None:
        kind, number = message.get("type"), message.get("id")
        if kind == "hello" and message.get("protocol") != PROTOCOL:
            told = message.get("protocol")
            detail = f"it speaks protocol {told}, this program {PROTOCOL}: use one of the same"
            self._lose("worker_bad_answer", detail)
        elif kind == "fatal":
            self._lose("worker_crashed", str(message.get("detail")))
        elif kind == "ready":
            self._settle(0, lambda pending: pending.set_result(message))
        elif kind == "answer" and isinstance(number, int):
            self._settle(number, lambda pending: pending.set_result(message))
        elif kind == "failure" and isinstance(number, int):
            out = message.get("reason") == "out_of_memory"
            reason = "worker_out_of_memory" if out else "worker_failed"
            refused = WorkerRefusedError(reason, f"{message.get('detail')} (log: {self.log})")
            self._settle(number, lambda pending: pending.set_exception(refused))

    def _settle(self, number: int, give: Callable[[Future[Mapping[str, Any]]], None]) -> None:
        """Give the reply to whoever waits for it; a late one is nobody's."""
        with self._lock:
            pending, awaited = self._pending, self._awaited[0]
            if pending is None or awaited != number:
                return
            self._pending = None
            if pending.set_running_or_notify_cancel():
                give(pending)

    def _watch(self) -> None:
        """End the worker when it is silent, late, or too large."""
        while not self._ended.wait(_LOOK_S):
            now = time.monotonic()
            with self._lock:
                waiting, deadline = self._pending is not None, self._awaited[1]
            limit = self._limits
            if waiting and now > deadline:
                seconds = limit.request_s if self._awaited[0] else limit.start_s
                self._lose("worker_timeout", f"it did not answer within {seconds:g} s")
            elif now - self._heard > limit.silent_s:
                told = f"it gave no sign of life for {limit.silent_s:g} s"
                self._lose("worker_timeout", told)
            elif limit.memory_bytes is not None and self._memory() > limit.memory_bytes:
                size = f"{limit.memory_bytes / 2**30:g} GiB"
                self._lose("worker_out_of_memory", f"it took more than the {size} allowed to it")

    def _memory(self) -> int:
        """Bytes resident in the worker and its children."""
        total = 0
        with suppress(psutil.Error):
            for child in psutil.Process(self._guard.pid).children(recursive=True):
                with suppress(psutil.Error):
                    total += child.memory_info().rss
        return total

    def _lose(self, reason: str, why: str) -> None:
        """Remember why the worker is lost, the first reason alone, and end it."""
        with self._lock:
            if self._why is None:
                said = " / ".join(_last_lines(self.log))
                quoted = f"; last words: {said}" if said else ""
                self._why = reason, f"{why}{quoted} (log: {self.log})"
        self._end()

    def _fail_pending(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, None
            why = self._why
        if pending is not None and why is not None and pending.set_running_or_notify_cancel():
            pending.set_exception(WorkerLostError(*why))

    def _end(self) -> None:
        """Close the line by which the guard knows that the worker is wanted."""
        if self._guard.stdin is not None:
            with suppress(OSError):
                self._guard.stdin.close()

    def _note(self, sentence: str) -> None:
        with self.log.open("ab") as log:
            log.write(f"[vividmed] {sentence}\n".encode())


class _LineTooLongError(Exception):
    pass


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise _LineTooLongError
        yield line


def _message(line: bytes) -> Mapping[str, Any] | None:
    """The message of a line; None of a line that something else has printed."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _environment(gpu: int | None) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    if gpu is None:
        return {**own, **_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""}
    seen = [name for name in own.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    device = seen[gpu] if gpu < len(seen) else str(gpu)
    return {**own, **_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": device}


def _new_log(name: str) -> Path:
    folder = home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    descriptor, path = tempfile.mkstemp(".log", f"worker-{name}-{stamp}-{os.getpid()}-", folder)
    os.close(descriptor)
    return Path(path)


def _exit_in_words(code: int | None) -> str:
    if code is not None and code > 128:
        killed = ", as when the machine runs out of memory" if code == 128 + 9 else ""
        return f"it was ended by signal {code - 128}{killed}"
    return f"it ended with exit code {code}"


def _last_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_BYTES_READ))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return [line[:_LONGEST_QUOTE] for line in lines if line][-_LINES_QUOTED:]
