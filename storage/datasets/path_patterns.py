"""Paths of a data set as its declaration writes them: `images{part}/{case}_0000.nii.gz`.

`{name}` stands for a part of one name and `{name:regex}` for one of a form; the same `{name}` twice
stands for the same. `*` stands for anything in one name.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import Path

_JUNK = (".", "__MACOSX")
"""How names begin that macOS and archives put beside the files: `._case.nii.gz`, .DS_Store."""

Captured = Mapping[str, str]


def names_in(pattern: str) -> list[str]:
    """The names that stand in braces."""
    return [name for _, name, _, _ in string.Formatter().parse(pattern) if name]


def check_pattern(pattern: str) -> str:
    """Give back a pattern if it is one.

    Raises:
        ValueError: for a path that leads out of the folder, and for braces that are not closed.
    """
    if pattern.startswith("/") or ".." in pattern.split("/"):
        raise ValueError("write a path below the data set's folder, which may hold links")
    for piece in pattern.split("/"):
        try:
            _expression(piece, {})
        except re.error as error:
            raise ValueError(f"{piece!r} is no pattern: {error}") from error
    return pattern


def find(
    folder: Path, pattern: str, known: Captured | None = None
) -> Iterator[tuple[Path, Captured]]:
    """The files and folders that a pattern describes, by name, and what its names stand for.

    Args:
        folder: Where the path begins.
        pattern: See the module.
        known: What some of the names stand for.
    """
    yield from _below(folder, pattern.split("/"), dict(known or {}))


def _below(folder: Path, pieces: list[str], known: Captured) -> Iterator[tuple[Path, Captured]]:
    if not pieces:
        yield folder, known
        return
    piece, rest = pieces[0], pieces[1:]
    if (literal := _literal(piece, known)) is not None:
        if (path := folder / literal).exists():
            yield from _below(path, rest, known)
        return
    expression = re.compile(_expression(piece, known))
    for name in _listing(folder):
        if found := expression.fullmatch(name):
            yield from _below(folder / name, rest, {**known, **found.groupdict()})


def _literal(piece: str, known: Captured) -> str | None:
    """The name, if nothing in it is open."""
    if "*" in piece:
        return None
    words = []
    for text, name, _, _ in string.Formatter().parse(piece):
        if name is not None and name not in known:
            return None
        words += [text, known[name] if name else ""]
    return "".join(words)


def _expression(piece: str, known: Captured) -> str:
    words: list[str] = []
    seen: set[str] = set()
    for text, name, form, _ in string.Formatter().parse(piece):
        words.append(re.escape(text).replace(r"\*", ".*"))
        if name is None:
            continue
        if name in known:
            words.append(re.escape(known[name]))
        elif name in seen:
            words.append(f"(?P={name})")
        else:
            words.append(f"(?P<{name}>{form or '.+?'})")
            seen.add(name)
    re.compile(expression := "".join(words))
    return expression


def _listing(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 there may be 100,000, and few match
    except (NotADirectoryError, FileNotFoundError, PermissionError):
        return []
    return sorted(name for name in names if not name.startswith(_JUNK))
