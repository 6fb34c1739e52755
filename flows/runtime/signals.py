"""Ends a run at once, by a signal or because Prefect's server is lost, whatever it is doing.

Threads cannot be stopped: one may be in the middle of a CT volume, another wait for a model. But
files of the store appear whole or not at all, so a run may be left at any moment, and the next one
goes on from there. What must not be left behind are child processes, such as those of worker
engines; Prefect's temporary server and vLLM's end by themselves, also where this process is killed.

The work runs in a thread, since the main one is where signals arrive; that also keeps Prefect from
putting its own handler in place, which would wait for all threads.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import NoReturn, TypeVar

from rich.console import Console

from flows.runtime.prefect_server import PrefectServer

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WATCH_SECONDS = 3.0
_MISSED_ANSWERS = 3
"""A busy server may miss one answer. With 5 s for each, a lost one is told within 25 s; one that
refuses the connection or has ended, within 10 s."""

_temporary_servers: list[subprocess.Popen[str]] = []
"""Prefect's, of this process: those that are ended with it."""

_LOST = 1
"""The exit code of a run whose server was lost: that of any other mistake."""


def end_at_signals(work: Callable[[], T]) -> T:
    """The result of some work; from now on SIGINT, SIGTERM and SIGHUP end the process.

    They do so after the work too. A signal that is ignored
    stays so: `nohup` and shell scripts ask for it. The exit code is 128 and the signal's number,
    as shells have it.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is taken
            done.set_exception(error)

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    threading.Thread(target=run, name="run", daemon=True).start()
    return done.result()


def end_when_lost(server: PrefectServer) -> None:
    """From now on, end the process with a sentence when Prefect's server is lost.

    Without its server a run would wait for ever: Prefect tries again and again.
    """
    if server.process is not None:
        _temporary_servers.append(server.process)
    threading.Thread(target=_watch, args=(server,), name="watch", daemon=True).start()


def _watch(server: PrefectServer) -> None:
    missed = 0
    while missed < _MISSED_ANSWERS:
        time.sleep(_WATCH_SECONDS)
        fault = server.fault()
        if server.closing.is_set():
            return
        missed = missed + 1 if fault else 0
        if fault and server.process is not None and server.process.poll() is not None:
            break
    _leave(f"Prefect's server at {server.api_url} was lost ({fault})", _LOST)


def _end(number: int, _: FrameType | None) -> None:
    for heeded in _SIGNALS:
        signal.signal(heeded, signal.SIG_IGN)  # an impatient second one must not cut this short
    _leave(f"stopped by {signal.Signals(number).name}", 128 + number)


def _leave(why: str, code: int) -> NoReturn:
    console = Console(stderr=True)
    console.show_cursor()  # bars hide it
    console.print(
        f"\n{why}: finished shards and answers are kept; run the same command to go on",
        soft_wrap=True,
        markup=False,
    )
    for child in multiprocessing.active_children():
        child.terminate()
    for server in _temporary_servers:
        server.kill()  # it would take a second or two to end by itself; its database bears it
        server.wait()
    os._exit(code)
