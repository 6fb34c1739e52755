"""The Prefect server of a run started by hand: the user's, or a temporary one on this machine.

Prefect would start a temporary server of its own. That one outlives a run that is killed, and it
is started again and again for as long as its database cannot be used.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import httpx

from flows.runtime.prefect_defaults import LOOPBACK
from storage.inputs import home

_ANSWER_SECONDS = 5.0
"""A healthy server answers at once; over a slow line within a second or two."""

_START_SECONDS = 300.0
"""A temporary server is up within 10 s, but may take minutes where many share a machine."""

_END_SECONDS = 10.0
"""It gives itself 5 s to end."""

_PAUSE_SECONDS = 0.1

_DATABASE = "prefect.db"


class PrefectServerError(Exception):
    """No Prefect server that can be used; the message says what to do."""


@dataclass(frozen=True)
class PrefectServer:
    """A server that answers.

    api_url: its address, with `/api`.
    process: the server itself where it is a temporary one, a child of this process.
    closing: set when this process ends it, so that nobody takes it for lost.
    """

    api_url: str
    process: subprocess.Popen[str] | None = None
    closing: threading.Event = field(default_factory=threading.Event)

    def fault(self) -> str | None:
        """Why it does not answer; None when it does."""
        if self.process is not None and self.process.poll() is not None:
            return f"it ended with exit code {self.process.returncode}"
        try:
            url = httpx.URL(f"{self.api_url.rstrip('/')}/health")
            # No proxy, of whatever kind, stands before a server on this machine.
            answer = httpx.get(url, timeout=_ANSWER_SECONDS, trust_env=url.host not in LOOPBACK)
        except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:
            return str(error) or type(error).__name__
        return None if answer.is_success else f"it answers {answer.status_code}"


def open_server(report: Callable[[str], None]) -> PrefectServer:
    """The server that `PREFECT_API_URL` or the profile names; else a temporary one is started.

    Prefect's client then uses it in the whole process. A temporary server's database that cannot be
    used, such as one that a newer Prefect wrote, is put aside, and a new one begun.

    Args:
        report: gets one sentence about a database that was put aside.

    Raises:
        PrefectServerError: if the named server does not answer, or none can be started.
    """
    import prefect.context
    from prefect.settings import get_current_settings

    if named := get_current_settings().api.url:
        server = PrefectServer(named)
        if fault := server.fault():
            raise PrefectServerError(
                f"no Prefect server answers at PREFECT_API_URL = {named} ({fault}): start it "
                "(`make server` or `prefect server start`), or unset PREFECT_API_URL to have a "
                "temporary one"
            )
        return server
    server = _temporary_server(report)
    os.environ["PREFECT_API_URL"] = server.api_url
    prefect.context.refresh_global_settings_context()
    return server


def _temporary_server(report: Callable[[str], None]) -> PrefectServer:
    folder = Path(os.environ["PREFECT_HOME"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "temporary-servers.lock").open("a")
    except OSError as error:
        raise PrefectServerError(
            f"Prefect's folder {folder} cannot be written ({error.strerror}): set VIVIDMED_HOME "
            "to a folder that can"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        return _start(folder, lock)
    except PrefectServerError:
        aside = _put_database_aside(folder, lock)
        if aside is None:
            raise
    server = _start(folder, lock)
    report(
        f"Prefect's database could not be used: it is now {aside}, and a new one was begun "
        "(the store is not affected)"
    )
    return server


def _start(folder: Path, lock: IO[str]) -> PrefectServer:
    """Start a server; the lock is held until this process ends."""
    log = folder / f"temporary-server-{os.getpid()}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            # -P: a folder `flows` where the user stands is not ours.
            [sys.executable, "-P", "-m", f"{__package__}.temporary_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            start_new_session=True,  # Ctrl-C is for the run, which then ends the server
        )
    assert process.stdout is not None  # noqa: S101 for the type checker
    port = process.stdout.readline().strip()
    server = PrefectServer(f"http://127.0.0.1:{port}/api", process)
    give_up = time.monotonic() + _START_SECONDS
    while fault := server.fault():
        if process.poll() is not None or time.monotonic() > give_up:
            process.kill()
            lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
            last = lines[-1] if lines else fault
            raise PrefectServerError(
                f"Prefect's temporary server did not start: {last} (see {log})"
            )
        time.sleep(_PAUSE_SECONDS)
    atexit.register(_stop, server, process, log, lock)
    return server


def _stop(server: PrefectServer, process: subprocess.Popen[str], log: Path, lock: IO[str]) -> None:
    server.closing.set()
    assert process.stdin is not None  # noqa: S101 for the type checker
    process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.unlink(missing_ok=True)
    lock.close()


def _put_database_aside(folder: Path, lock: IO[str]) -> Path | None:
    """Rename the database of our own servers; None if it is not ours, or is in use.

    Only that in the project's own data folder is ours: a user who sets `PREFECT_HOME` or the
    database's address keeps what they have.
    """
    database = folder / _DATABASE
    is_ours = folder == home() / "prefect" and not any(
        name.endswith("DATABASE_CONNECTION_URL") for name in os.environ
    )
    if not is_ours or not database.exists():
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None  # a server of another run has it open
    aside = folder / f"{_DATABASE}.{datetime.now(UTC):%Y%m%dT%H%M%S}.unusable"
    for suffix in ("", "-wal", "-shm"):  # SQLite's own files go with it
        if (file := database.with_name(_DATABASE + suffix)).exists():
            file.rename(f"{aside}{suffix}")
    fcntl.flock(lock, fcntl.LOCK_SH)
    return aside
