"""SHA-256 of files outside the store, such as images and weights, remembered between runs.

A digest is kept in `digests.sqlite` in the project's data folder, with the size, the times and the
inode that the file had when it was read; while these are the same, the file is not read again. The
time of the last status change is among them: unlike the time of modification, no program can set
it back.

The database only saves time. One that cannot be used is done without, a damaged one is put aside.
It keeps SQLite's rollback journal: a write-ahead log needs memory that all its users share, so it
would fail where workers on several machines have their data folder on a network drive.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from storage.inputs import home

MISSING = "missing"
"""In place of a digest: there is nothing at the path. It changes when the file appears."""

UNREADABLE = "unreadable"
"""In place of a digest: what is there cannot be read, or is no file, such as a pipe."""

_DATABASE = "digests.sqlite"

_SETTLED_NS = 2_000_000_000
"""Age of the last change, in ns, from which a digest is kept: 2 s is the coarsest clock of a file
system (FAT). A younger file could change again without its times showing it."""

_BATCH = 500
"""Files per query (SQLite takes up to 32,766 parameters). Digests are kept after each batch, so
that a run that is killed loses few."""

_BUSY_S = 30.0
"""Seconds to wait for another process that writes, which takes milliseconds."""

_FAULTS_OF_THE_FILE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""Damaged, no database, another table: put aside. A lock or a full disk are not the file's."""

_PRIMARY_CODE = 0xFF
"""SQLite's extended error codes have the primary one in their lowest byte."""

_log = logging.getLogger(__name__)

T = TypeVar("T")

_States = Mapping[Path, str]
"""Size, times and inode of files: the content of one that keeps them has not changed."""


def content_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of each path's content in hexadecimal, or `MISSING` or `UNREADABLE`.

    That of a folder, such as one of a DICOM series, covers the names and contents of the files
    directly in it; hidden ones are left out, as the readers of images do.
    """
    looked_up = {path: _look_up(path) for path in dict.fromkeys(paths)}
    files = [states for states in looked_up.values() if not isinstance(states, str)]
    digests = _file_digests({file: state for states in files for file, state in states.items()})
    return {
        path: states if isinstance(states, str) else _digest_of(path, states, digests)
        for path, states in looked_up.items()
    }


def combined_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over some paths in their order, each with the digest of its content."""
    return _sha256_of(f"{path} {digest}" for path, digest in content_digests(paths).items())


def _look_up(path: Path) -> _States | str:
    """The state of a file, or of those in a folder; else what stands in place of the digest."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            return {path: _state(status)}
        if stat.S_ISDIR(status.st_mode):
            return dict(_members(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte in it
        return MISSING
    except OSError:
        return UNREADABLE
    return UNREADABLE


def _members(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        with suppress(FileNotFoundError):  # a link to nothing, or removed since it was listed
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                yield path, _state(status)


def _state(status: os.stat_result) -> str:
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{status.st_size} {times} {status.st_ino}"


def _digest_of(path: Path, states: _States, digests: Mapping[Path, str]) -> str:
    if path in states:
        return digests[path]
    return _sha256_of(f"{file.name} {digests[file]}" for file in states)


def _sha256_of(lines: Iterable[str]) -> str:
    # No name has a null byte; one may have bytes that are not UTF-8.
    return hashlib.sha256(os.fsencode("\0".join(lines))).hexdigest()


def _file_digests(states: _States) -> dict[Path, str]:
    """The digests of files, read or remembered."""
    digests: dict[Path, str] = {}
    files = list(states)
    none: dict[Path, str] = {}
    for start in range(0, len(files), _BATCH):
        batch = {file: states[file] for file in files[start : start + _BATCH]}
        known = _with_database(partial(_recall, batch), none)
        read = {file: _read(file) for file in batch if file not in known}
        settled = {file: entry for file, (*entry, keep) in read.items() if keep}
        if settled:
            _with_database(partial(_remember, settled), None)
        digests |= known | {file: digest for file, (_, digest, _) in read.items()}
    return digests


def _read(file: Path) -> tuple[str, str, bool]:
    """State and digest of a file, and whether the state is certain to be that of the content."""
    try:
        with file.open("rb") as stream:
            before = os.fstat(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            after = os.fstat(stream.fileno())
    except FileNotFoundError:
        return "", MISSING, False
    except OSError:
        return "", UNREADABLE, False
    settled = time.time_ns() - after.st_ctime_ns > _SETTLED_NS
    return _state(before), digest, settled and _state(before) == _state(after)


def _recall(states: _States, db: sqlite3.Connection) -> dict[Path, str]:
    marks = ", ".join("?" * len(states))
    query = f"SELECT path, state, sha256 FROM files WHERE path IN ({marks})"  # noqa: S608
    rows = db.execute(query, [_key(file) for file in states])
    held = {path: (state, digest) for path, state, digest in rows}
    found = {file: held.get(_key(file)) for file in states}
    return {file: row[1] for file, row in found.items() if row and row[0] == states[file]}


def _remember(entries: Mapping[Path, Sequence[str]], db: sqlite3.Connection) -> None:
    with db:
        db.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?)",
            [(_key(file), state, digest) for file, (state, digest) in entries.items()],
        )


def _key(file: Path) -> bytes:
    # A link's own path, not its target's: the state is that of the target. Bytes: a name need not
    # be UTF-8.
    return os.fsencode(file.absolute())


def _with_database(use: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
    """What `use` gives on the database, or `otherwise` where there is none to be had."""
    path = home() / _DATABASE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_BUSY_S)) as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS files "
                "(path BLOB PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID"
            )
            return use(db)
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & _PRIMARY_CODE in _FAULTS_OF_THE_FILE:
            _put_aside(path)
        _warn(path, str(error))
    except OSError as error:
        _warn(path, str(error))
    return otherwise


@cache
def _warn(path: Path, error: str) -> None:
    """Once a process: every batch of files would say the same."""
    _log.warning("%s cannot be used, so files are read again: %s", path, error)


def _put_aside(path: Path) -> None:
    # Its journal too: SQLite would apply it to the database that comes in its place.
    for file in (path, path.with_name(f"{path.name}-journal")):
        with suppress(OSError):
            file.replace(file.with_name(f"{file.name}.damaged"))
