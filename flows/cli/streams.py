"""Standard output as it may be: closed, full, a pipe that is gone, or of few characters."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class OutputError(Exception):
    """Standard output cannot be written; the message says why."""


class _Output(io.FileIO):
    """Standard output that says itself what it cannot be written for."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise  # the reader has read enough, as `head` has
        except OSError as error:
            _open_null(1)  # else the interpreter tries once more as it ends
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def prepare() -> None:
    """Make standard output one that fails with `OutputError`, and takes every character.

    A character that its encoding lacks is printed as `?`. Streams that are closed (`>&-`) swallow
    what is printed. To be called before anything is.
    """
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            _open_null(number)
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    out = sys.__stdout__
    if out is None or sys.stdout is not out or out.fileno() != 1:
        return  # a program that calls the command has its own
    out.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding=out.encoding,
        errors="replace",
        line_buffering=out.isatty(),
    )


def is_unicode() -> bool:
    """Whether standard output takes every character."""
    encoding = getattr(sys.stdout, "encoding", None) or ""
    return encoding.lower().replace("-", "").replace("_", "").startswith("utf")


def as_text(argument: str) -> str:
    """An argument that is text, not a path, as UTF-8, whatever characters the locale has."""
    return os.fsencode(argument).decode(errors="replace") if not _is_text(argument) else argument


def finish() -> None:
    """Write what is left.

    Raises:
        OutputError: if it cannot be written.
        SystemExit: if the reader of a pipe has gone.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _open_null(1)
        sys.exit(1)


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:  # bytes that the locale could not read
        return False
    return True


def _open_null(number: int) -> None:
    """Connect a file descriptor with nothing, so that no other file gets its number."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
