"""Ends a run by a signal at once, whatever it is doing.

Threads cannot be stopped: one may be in the middle of a CT volume, another wait for a model. But
files of the store appear whole or not at all, so a run may be left at any moment, and the next one
goes on from there. What must not be left behind are child processes: Prefect's temporary server,
and those that vLLM runs a model in.

The work runs in a thread, since the main one is where signals arrive; that also keeps Prefect from
putting its own handler in place, which would wait for all threads.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import TypeVar

from rich.console import Console

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SERVER_SECONDS = 2.0
"""Prefect's server ends within a second unless it is just starting."""


def end_at_signals(work: Callable[[], T]) -> T:
    """The result of some work; from now on SIGINT, SIGTERM and SIGHUP end the process.

    They do so after the work too, when Prefect's server is still there. A signal that is ignored
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


def _end(number: int, _: FrameType | None) -> None:
    for heeded in _SIGNALS:
        signal.signal(heeded, signal.SIG_IGN)  # an impatient second one must not cut this short
    console = Console(stderr=True)
    console.show_cursor()  # bars hide it
    name = signal.Signals(number).name
    console.print(
        f"\nstopped by {name}: finished shards and answers are kept; run the same command to go on",
        soft_wrap=True,
    )
    for child in multiprocessing.active_children():
        child.terminate()
    _stop_prefect()
    os._exit(128 + number)


def _stop_prefect() -> None:
    """End the temporary server, if there is one, as Prefect does at the end of a process."""
    if "prefect.server.api.server" not in sys.modules:
        return
    from prefect.server.api.server import SubprocessASGIServer

    temporary = SubprocessASGIServer()
    while temporary.running and temporary.server_process is None:
        time.sleep(0.01)  # the run's thread is just starting it
    if (server := temporary.server_process) is None:
        return
    server.terminate()
    try:
        server.wait(_SERVER_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
