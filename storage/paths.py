"""Paths made of names that a data set gives, which stay below their folder, and their state.

Links in the folder are followed, also to outside: whoever owns the folder put them there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


class OutsideError(ValueError):
    """A name that leads out of the folder that it is looked for in."""


def path_below(folder: Path, name: str) -> Path:
    """The path that a name has in a folder; an absolute name must lead into the folder too.

    Raises:
        OutsideError: if the name leads out of the folder, or to the folder itself.
    """
    top = os.path.abspath(folder)  # noqa: PTH100 links are not resolved
    path = os.path.abspath(os.path.join(top, name))  # noqa: PTH100, PTH118
    if "\0" in name or not path.startswith(top.rstrip("/") + "/"):
        raise OutsideError(f"{name[:200]!r} leads out of {folder}")
    return folder / os.path.relpath(path, top)


def is_there(path: Path) -> bool:
    """Whether there is a file or folder; no name can be so long or odd that it is an error."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def listing_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the paths in their order, each with its size and the time of its last change."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(f"{path}\0{_size_and_time(path)}\0"))
    return digest.hexdigest()


def _size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None  # nothing is there, or no file can have this name
    return status.st_size, status.st_mtime_ns
