"""Files that hold one report each, in a folder or in an archive of it."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from storage.archives import ArchiveError, members
from storage.datasets.reader import LARGEST_REPORT, DatasetError
from storage.datasets.spool import Spool
from storage.paths import listing_digest

_SIDECAR = "._"
"""Begins the names of files in which macOS keeps attributes of the file of the same name."""


class UnusableFileError(Exception):
    """A file that holds no report: a reason code and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


_Place = int | Path | UnusableFileError
"""Where a report is found: put aside, or in the folder; or why it is none."""


class ReportFiles:
    """The files of one suffix in a folder or, where there is one, in an archive.

    An archive is read once, to its end, when the first key is asked for.
    """

    def __init__(self, archive: Path, folder: Path, suffix: str) -> None:
        self._archive = archive
        self._folder = folder
        self._suffix = suffix
        self._spool = Spool()

    def keys(self) -> list[str]:
        """What each file is found by, in order of the first number in it: its path in the folder.

        Of members of an archive with one name, the last has it: unpacking leaves that one. Each of
        the others is a record too, and is refused when it is read.

        Raises:
            DatasetError: if the archive is damaged.
        """
        return sorted(self._places, key=_number)

    def read(self, key: str) -> bytes:
        """The content of a file.

        Raises:
            UnusableFileError: if it is no report, too large or cannot be read.
        """
        place = self._places[key]
        if isinstance(place, UnusableFileError):
            raise place
        return read_report_file(place) if isinstance(place, Path) else self._spool.read(place)

    def digest(self) -> str:
        """SHA-256 of the archive, or of names, sizes and times in the folder."""
        if self._archive.exists():
            with self._archive.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        return listing_digest(sorted(self._folder.glob("*")))

    @cached_property
    def _places(self) -> Mapping[str, _Place]:
        if self._archive.exists():
            return self._archived()
        return dict(_keyed(self._unpacked(), above=""))

    def _name(self, path: str) -> str | None:
        """What a report is called in its folder or archive; None of other files."""
        name = posixpath.normpath(_as_text(path).lstrip("/"))
        if not name.lower().endswith(self._suffix):
            return None
        return name[: -len(self._suffix)] + self._suffix

    def _unpacked(self) -> list[tuple[str, _Place]]:
        found = [(self._name(path.name), path) for path in sorted(self._folder.glob("*"))]
        return [(name, _sidecar(name) or path) for name, path in found if name]

    def _archived(self) -> dict[str, _Place]:
        found: list[tuple[str, _Place]] = []
        try:
            for member, content in members(self._archive):
                name = self._name(member.name)
                if not name or member.kind == "folder":
                    continue
                if member.kind == "file":
                    data = content.read(LARGEST_REPORT + 1)
                    found.append((name, _unusable(name, data) or self._spool.add(data)))
                else:
                    found.append((name, _no_file(name, f"a {member.kind}")))
        except ArchiveError as error:
            raise DatasetError(
                f"{self._archive} is damaged ({error}): delete it and fetch it again"
            ) from error
        self._spool.finish()
        reports = [name for name, place in found if isinstance(place, int)]
        return dict(_keyed(found, _shared_folder(reports)))


def _keyed(found: list[tuple[str, _Place]], above: str) -> Iterator[tuple[str, _Place]]:
    """Each name without the folder above; one that comes again later gets its number too."""
    last = {name: number for number, (name, _) in enumerate(found)}
    for number, (name, place) in enumerate(found):
        key = name.removeprefix(above)
        if last[name] == number:
            yield key, place
        else:
            detail = f"there are two files {name}; the later one is used"
            yield f"{key} ({number + 1})", UnusableFileError("duplicate_report", detail)


def _shared_folder(names: list[str]) -> str:
    """The folder that all reports are below, with a slash; nothing where there is none."""
    shared = posixpath.commonpath(map(posixpath.dirname, names)) if names else ""
    return f"{shared}/" if shared else ""


def _unusable(name: str, data: bytes) -> UnusableFileError | None:
    if name.startswith("../"):
        return UnusableFileError("path_outside_source", f"{name} leads out of the archive")
    return _sidecar(name) or (_too_large(name) if len(data) > LARGEST_REPORT else None)


def _sidecar(name: str) -> UnusableFileError | None:
    if posixpath.basename(name).startswith(_SIDECAR):
        return _no_file(name, "a macOS file of attributes")
    return None


def _no_file(name: str, kind: str) -> UnusableFileError:
    return UnusableFileError("member_not_a_report", f"{name} is {kind}, not a report")


def _too_large(name: str) -> UnusableFileError:
    detail = f"{name} has more than {LARGEST_REPORT:,} bytes"
    return UnusableFileError("too_large", detail)


def read_report_file(path: Path) -> bytes:
    """The content of a report's file.

    Raises:
        UnusableFileError: if it is no file, too large or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise UnusableFileError("file_unreadable", f"{path.name} is not a file")
        with path.open("rb") as stream:
            data = stream.read(LARGEST_REPORT + 1)
    except OSError as error:
        detail = f"{path.name} cannot be read: {error.strerror}"
        raise UnusableFileError("file_unreadable", detail) from error
    if len(data) > LARGEST_REPORT:
        raise _too_large(path.name)
    return data


def _as_text(name: str) -> str:
    """A file's name with a replacement character for each byte that is not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _number(key: str) -> tuple[int, str]:
    digits = re.search(r"\d+", key)
    return (int(digits.group()) if digits else 0, key)
