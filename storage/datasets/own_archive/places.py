"""Where the images of a table are on this machine, whatever machine wrote the paths."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from storage.paths import OutsideError, is_there, path_below

_SAMPLE = 1000
"""Paths that are looked at to find out how they are written."""

_MOVES = 5
"""Of the places where absolute paths of another machine may lead, those that are compared."""

_ROOTED = re.compile(r"[A-Za-z]:[\\/]|[\\/]")


@dataclass(frozen=True)
class Places:
    """How a path of the table becomes one of this machine.

    folder: what the paths lie below.
    path_prefix: what they begin with in the table and is left off.
    windows_paths: whether backslashes stand between folders.
    """

    folder: Path
    path_prefix: str = ""
    windows_paths: bool = False

    def leads_to_a_file(self, path: str) -> bool:
        """Whether a path of the table is that of a file or folder of this machine."""
        own = _slashed(path.removeprefix(self.path_prefix), self.windows_paths)
        try:
            return is_there(path_below(self.folder, own))
        except OutsideError:
            return False

    def layout(self) -> dict[str, object]:
        """What the layout of the declaration says of it."""
        said = {"path_prefix": self.path_prefix, "windows_paths": self.windows_paths}
        return {key: value for key, value in said.items() if value}


def find_places(paths: Callable[[], Iterable[str]], beside: Path, images: Path | None) -> Places:
    """Where the paths of a table lead.

    Args:
        paths: gives every path as the table has it, each time that it is called.
        beside: the table's folder.
        images: the folder that the user named.
    """
    bases = [folder for folder in (images, beside) if folder is not None]
    sample = list(islice(paths(), _SAMPLE))
    is_windows = any(
        re.match(r"[A-Za-z]:[\\/]|\\\\", p) or ("\\" in p and "/" not in p) for p in sample
    )
    rooted = [path for path in sample if _ROOTED.match(path)]
    possible = [Places(base, windows_paths=is_windows) for base in bases]
    if any(is_there(Path(path)) for path in rooted):
        possible.append(Places(_shared_folder(paths(), images), windows_paths=is_windows))
    moved = Counter(place for path in rooted for place in _moved(path, bases, is_windows))
    possible += [place for place, _ in moved.most_common(_MOVES)]
    return max(possible, key=lambda place: sum(map(place.leads_to_a_file, sample)))


def _slashed(path: str, is_windows: bool) -> str:
    return path.replace("\\", "/") if is_windows else path


def _shared_folder(paths: Iterable[str], images: Path | None) -> Path:
    """The folder that all absolute paths lie below; the one that the user named if it is above."""
    shared = ""
    for path in paths:
        if path.startswith("/"):
            above = os.path.dirname(os.path.normpath(path))  # noqa: PTH120 a path of text
            shared = os.path.commonpath([shared, above]) if shared else above
    folder = Path(shared or "/")
    return images if images and folder.is_relative_to(images) else folder


def _moved(path: str, bases: Iterable[Path], is_windows: bool) -> Iterator[Places]:
    """Where the end of an absolute path of another machine is found: the longest end."""
    slashed = _slashed(path, is_windows)
    for step in re.finditer(r"/+", slashed):
        for base in bases:
            if slashed[step.end() :] and (base / slashed[step.end() :]).exists():
                yield Places(base, path[: step.end()], is_windows)
                return
