"""The `vividmed` command in a process of its own that has its libraries already.

A process imports the libraries once, and every command is a fork of it: some hundred commands would
otherwise spend most of their time on imports. What reads the environment when it is imported, as
Prefect and the command line do, is left to the forks.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_LIBRARIES = (
    *("duckdb", "fastapi", "httpx", "nibabel", "pyarrow.dataset", "pyarrow.fs", "pydicom", "rich"),
    *("scipy.ndimage", "skimage.measure", "sqlalchemy", "typer", "uvicorn", "yaml"),
    *("tasks.pipeline.stages", "tasks.audit.gold_scores"),
)
_LARGEST_MESSAGE = 2**18
"""Bytes of arguments and environment."""


class ForkedCommand:
    """Runs commands one after the other; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "tests.flows.forked_command", str(theirs.fileno())],
                cwd=folder,
                pass_fds=[theirs.fileno()],
            )

    def __enter__(self) -> ForkedCommand:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._parent.wait()

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], stdin: str
    ) -> subprocess.CompletedProcess[str]:
        """What a command printed and its exit code, as `subprocess.run` gives them."""
        with _file() as given, _file() as out, _file() as errors:
            given.write(stdin.encode())
            given.seek(0)
            message = json.dumps([list(arguments), dict(environment)]).encode()
            files = [given.fileno(), out.fileno(), errors.fileno()]
            socket.send_fds(self._socket, [message], files)
            code = int(self._socket.recv(_LARGEST_MESSAGE))
            return subprocess.CompletedProcess(arguments, code, _text(out), _text(errors))


def _file() -> IO[bytes]:
    return os.fdopen(os.memfd_create("stream"), "wb+", buffering=0)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _serve(requests: socket.socket) -> None:
    """Fork a process for each request, until there are no more; returns in the forks alone."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, _LARGEST_MESSAGE, 3)
        if not message:
            os._exit(0)
        if not (process := os.fork()):
            requests.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            arguments, environment = json.loads(message)
            sys.argv = [str(Path(sys.executable).with_name("vividmed")), *arguments]
            os.environ.clear()
            os.environ.update(environment)
            return
        for file in files:
            os.close(file)
        _, status = os.waitpid(process, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    for name in _LIBRARIES:
        importlib.import_module(name)
    _serve(socket.socket(fileno=int(sys.argv[1])))
    globals()["__package__"] = None  # else help and completion would call the command `python -m …`
    from vividmed.__main__ import main

    main()
