"""Runs a command that ends with the process that started it, however that one ends.

    python run_with_parent.py [--stdin FD] [--remove FOLDER] COMMAND ARGUMENT …

A killed process cannot end its children, and an engine's keep a GPU's memory. So this program
stands between: it runs the command in a process group of its own, and ends the whole group when its
standard input is closed, which the kernel does when the parent dies, or when it has another parent.
It imports the standard library alone: it is started as a file, by any Python.

    --stdin FD       an open file of this program that becomes the command's standard input, which
                     is nobody's otherwise
    --remove FOLDER  the parent's scratch folder, removed here if the parent was killed
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

_LOOK_S = 0.5
"""Seconds between two looks at the command."""

_GRACE_S = 10.0
"""Seconds that the group has to end by itself; vLLM frees its GPUs within a few."""


def main() -> int:
    """Run the command of the arguments; its exit code, or 128 and the signal that ended it."""
    arguments = _arguments()
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, _exit)
    # The command's output goes where this program's goes.
    given = subprocess.DEVNULL if arguments.stdin is None else arguments.stdin
    command = subprocess.Popen(arguments.command, stdin=given, start_new_session=True)
    if arguments.stdin is not None:
        os.close(arguments.stdin)
    try:
        while command.poll() is None and os.getppid() == parent:
            readable, _, _ = select.select([sys.stdin], [], [], _LOOK_S)
            if readable and not os.read(sys.stdin.fileno(), 1):  # the other end is closed
                break
    finally:
        _end_group(command)
        if arguments.remove and os.getppid() != parent:
            shutil.rmtree(arguments.remove, ignore_errors=True)
    code = command.returncode
    return code if code >= 0 else 128 - code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stdin", type=int)
    parser.add_argument("--remove")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


def _exit(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)


def _end_group(command: subprocess.Popen[bytes]) -> None:
    """End the command and what it has started, gently at first."""
    with suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    while time.monotonic() < deadline and _lives(command):
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGKILL)
    command.wait()


def _lives(command: subprocess.Popen[bytes]) -> bool:
    command.poll()  # takes its exit code, without which it stays in the group
    try:
        os.killpg(command.pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
