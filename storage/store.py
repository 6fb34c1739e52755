"""The place where shards live: a folder on a local disk, or a bucket.

Both are reached through `pyarrow.fs`, with the one difference that counts: on a local disk a file
becomes visible by fsync and rename, in a bucket by the end of its upload. Either way a reader
sees a whole file or none, and two writers of one file leave one of the two behind, never a mix.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pyarrow import fs

from storage.places import StoreError, bucket_error, checked_root, open_filesystem, read_bucket

__all__ = ["Store", "StoreError", "StoredFile"]

PARTIAL = ".partial"
"""Folder of files that are being written. It lies outside the tables, as polars refuses a folder
that holds anything but Parquet."""
_PROBE = f"{PARTIAL}/probe-"
"""Begins the path of a file that is written to see whether the store can be."""

_FIRST_CONTACT_S = 20.0
"""How long a store may take to show that it can be written, before any work is done."""

_COPIES = 16
"""Copies at once in a bucket, whose answer to one takes tens of milliseconds."""

_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
"""What a disk says that has no hard links, as exFAT and some network disks, or none across it."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class StoredFile:
    """A file of the store: its path below the root, and how long ago it was written."""

    path: str
    age: timedelta


@dataclass(frozen=True)
class Store:
    """Files by their path relative to the root.

    root: a folder, `s3://bucket/prefix` or `gs://bucket/prefix`; a local one becomes absolute.

    Raises:
        StoreError: if it is none of these, or holds a key.
    """

    root: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", checked_root(self.root))

    @property
    def base(self) -> Store:
        """The store that this one is put over; itself where there is none."""
        return self

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder on this machine."""
        return "://" not in self.root

    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """The pyarrow file system and the root's path in it.

        Raises:
            StoreError: if the root is a bucket that cannot be found.
        """
        return open_filesystem(self.root)

    def location(self, path: str) -> str:
        """The full path or object name of a file of the store."""
        base = self.root if self.is_local else read_bucket(self.root).base
        return f"{base}/{path}"

    def places(self, paths: Sequence[str]) -> list[str]:
        """Where the bytes of some files lie, below the root; elsewhere in views of a store."""
        return [*paths]

    def read(self, path: str) -> bytes | None:
        """The bytes of a file, or None when there is no such file."""
        filesystem, base = self.filesystem()
        try:
            with filesystem.open_input_file(f"{base}/{path}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error("read", path, error) from error

    def write(self, path: str, data: bytes) -> None:
        """Put a whole file in place, or leave what was there.

        Raises:
            StoreError: if the store is full, not writable or not reachable.
        """
        try:
            if self.is_local:
                self._write_local(path, data)
            else:
                filesystem, base = self.filesystem()
                with filesystem.open_output_stream(f"{base}/{path}") as stream:
                    stream.write(data)
        except OSError as error:
            raise self._error("write", path, error) from error

    def has(self, path: str) -> bool:
        """Whether there is a file at a path."""
        filesystem, base = self.filesystem()
        try:
            info = filesystem.get_file_info(f"{base}/{path}")
        except OSError as error:
            raise self._error("read", path, error) from error
        return bool(info.type == fs.FileType.File)

    def delete(self, path: str) -> None:
        """Remove a file, if it is there."""
        filesystem, base = self.filesystem()
        try:
            filesystem.delete_file(f"{base}/{path}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error("remove", path, error) from error

    def copy(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Put the bytes of files in place at other paths, each whole; a link where a disk can.

        pairs: from where, to where.

        Raises:
            StoreError: if a file is not there, or the store cannot be written.
        """
        with ThreadPoolExecutor(1 if self.is_local else _COPIES) as copies:
            for done in [copies.submit(self._copy, *pair) for pair in pairs]:
                done.result()
        if self.is_local:
            for folder in {Path(self.location(target)).parent for _, target in pairs}:
                _settle(folder)

    def share(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Give files a second path that costs no room; nothing happens where that cannot be."""
        if not self.is_local:
            return
        for source, target in pairs:
            place = Path(self.location(target))
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self.location(source), place)
            except FileExistsError:
                continue
            except OSError:
                return

    def is_shared(self, path: str, other: str) -> bool:
        """Whether two paths are one file, which takes room once."""
        try:
            return self.is_local and Path(self.location(path)).samefile(self.location(other))
        except OSError:
            return False

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Paths of the files below a folder, sorted; empty when there is no such folder."""
        return [file.path for file in self.files(folder) if file.path.endswith(suffix)]

    def files(self, folder: str, *, recursive: bool = True) -> Sequence[StoredFile]:
        """The files below a folder with their age, sorted by path."""
        filesystem, base = self.filesystem()
        selector = fs.FileSelector(f"{base}/{folder}", recursive=recursive, allow_not_found=True)
        try:
            infos = filesystem.get_file_info(selector)
        except OSError as error:
            raise self._error("list", folder, error) from error
        now = datetime.now(UTC)
        found = [
            StoredFile(info.path[len(base) + 1 :], now - (info.mtime or now))
            for info in infos
            if info.type == fs.FileType.File
        ]
        return sorted(found, key=lambda file: file.path)

    def require_writable(self) -> None:
        """Prove that a file can be written, before any work is done.

        Raises:
            StoreError: if it cannot, or the store does not answer within 20 s.
        """
        if self.is_local and Path(self.root).exists() and not Path(self.root).is_dir():
            raise StoreError(f"{self.root} is a file: choose another --store, which is a folder")
        if not _within(_FIRST_CONTACT_S, self._probe):
            keys = "" if self.is_local else f"; for access {read_bucket(self.root).keys_belong}"
            raise StoreError(
                f"{self.root} has not answered for {_FIRST_CONTACT_S:.0f} s: check the network and "
                f"the address{keys}",
                transient=True,
            )

    def _probe(self) -> None:
        probe = f"{_PROBE}{uuid.uuid4().hex}"
        self.write(probe, b"")
        self.delete(probe)

    def _write_local(self, path: str, data: bytes) -> None:
        target = Path(self.location(path))
        partial = Path(self.location(PARTIAL)) / f"{target.name}.{uuid.uuid4().hex}"
        for folder in (partial.parent, target.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            _move(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        _settle(target.parent)

    def _copy(self, source: str, target: str) -> None:
        try:
            if self.is_local:
                self._copy_local(Path(self.location(source)), Path(self.location(target)))
            else:
                filesystem, base = self.filesystem()
                filesystem.copy_file(f"{base}/{source}", f"{base}/{target}")
        except OSError as error:
            verb, path = ("copy", target) if self.has(source) else ("read", source)
            raise self._error(verb, path, error) from error

    def _copy_local(self, source: Path, target: Path) -> None:
        partial = Path(self.location(PARTIAL)) / f"{target.name}.{uuid.uuid4().hex}"
        for folder in (partial.parent, target.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            try:
                os.link(source, partial)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                shutil.copyfile(source, partial)
                with partial.open("rb") as copied:
                    os.fsync(copied.fileno())
            _move(partial, target)
        finally:
            partial.unlink(missing_ok=True)  # a link that replaces itself stays

    def _error(self, verb: str, path: str, error: OSError) -> StoreError:
        is_probe = path.startswith(_PROBE)
        place = self.root if is_probe else self.location(path)
        if not self.is_local:
            return bucket_error(read_bucket(self.root), verb, place, error)
        if error.errno in _FULL:
            return StoreError(
                f"there is no room left to write {place}: free some space and run the same "
                "command again; finished shards are kept"
            )
        if error.errno in _REFUSED:
            no_folder = is_probe and error.errno == errno.ENOENT
            reason = "no folder can be made there" if no_folder else os.strerror(error.errno)
            return StoreError(
                f"cannot {verb} {place}: {reason}; choose another --store or change its permissions"
            )
        return StoreError(f"cannot {verb} {place}: {error}", transient=True)


def _settle(folder: Path) -> None:
    """Let the renames in a folder survive a power cut."""
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def _move(partial: Path, target: Path) -> None:
    """Rename a finished file into place, also where a table's folder is a link to another disk."""
    try:
        partial.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{partial.name}")
        try:
            shutil.copyfile(partial, beside)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)


def _within(seconds: float, work: Callable[[], None]) -> bool:
    """Whether a call of a library that may hang has ended in time; if not, its thread is left."""
    fault: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            fault.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if fault:
        raise fault[0]
    return not thread.is_alive()
