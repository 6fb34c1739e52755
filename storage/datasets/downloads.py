"""Finds the parts of a download below the folder that the user names.

People keep a download as it came (`physionet.org/files/mimic-cxr/2.1.0`), unpacked one folder
deeper, or several downloads side by side.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from storage.datasets.reader import DatasetError

_DEPTH = 5
"""Folders below the one that is named: `physionet.org/files/<name>/<version>` and one more."""

_OF_IMAGES = re.compile(r"p1\d|p\d{8}|(train|valid|validation|test)_\d+|\..*")
"""Folders of patients and hidden ones, of which there are thousands: nothing else is in them."""


def folders_below(root: Path) -> Iterator[Path]:
    """The folder itself and those below, nearest first, by name; not those of single patients.

    Raises:
        DatasetError: if the folder cannot be listed.
    """
    level = [root]
    for _ in range(_DEPTH + 1):
        yield from level
        level = [below for folder in level for below in _folders_in(folder)]


def find_files(root: Path, *patterns: str) -> list[Path]:
    """Files whose name fits one of the patterns, nearest first, then by name."""
    return list(files_in(folders_below(root), *patterns))


def files_in(folders: Iterable[Path], *patterns: str) -> Iterator[Path]:
    """Files in these folders whose name fits one of the patterns."""
    for folder in folders:
        with _listing(folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if any(fnmatchcase(entry.name, pattern) for pattern in patterns) and entry.is_file()
            )
        yield from (folder / name for name in names if not is_junk(name))


def is_junk(name: str) -> bool:
    """Whether a file's name is one that macOS gives to what it keeps of another file."""
    return name.startswith("._")


def _folders_in(folder: Path) -> list[Path]:
    with _listing(folder) as entries:
        names = sorted(e.name for e in entries if not _OF_IMAGES.fullmatch(e.name) and e.is_dir())
    return [folder / name for name in names]


def _listing(folder: Path) -> os.ScandirIterator[str]:  # type: ignore[name-defined]
    try:
        return os.scandir(folder)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}") from error
