"""The place where shards live: a folder on a local disk, or a bucket.

Both are reached through `pyarrow.fs`, with the one difference that counts: on a local disk a file
becomes visible by fsync and rename, in a bucket by the end of its upload. Either way a reader
sees a whole file or none, and two writers of one file leave one of the two behind, never a mix.
"""

from __future__ import annotations

import errno
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs


class StoreError(Exception):
    """The store cannot be used; the message says what to do.

    transient: whether the same call may go through later, as with a bucket that is out of reach.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass(frozen=True)
class Store:
    """Files by their path relative to the root.

    root: a local path, or a URI that `pyarrow.fs.FileSystem.from_uri` knows (`s3://bucket/…`).
    """

    root: str

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder on this machine."""
        return "://" not in self.root

    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """The pyarrow file system and the root's path in it.

        Raises:
            StoreError: if the root is a URI that pyarrow does not know.
        """
        if self.is_local:
            return fs.LocalFileSystem(), str(Path(self.root).absolute())
        try:
            filesystem, base = fs.FileSystem.from_uri(self.root)
        except (ValueError, OSError) as error:
            raise StoreError(f"{self.root} is not a store: {error}") from error
        return filesystem, base

    def location(self, path: str) -> str:
        """The full path or object name of a file of the store."""
        return f"{self.filesystem()[1]}/{path}"

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
                _write_local(Path(self.location(path)), data)
            else:
                filesystem, base = self.filesystem()
                with filesystem.open_output_stream(f"{base}/{path}") as stream:
                    stream.write(data)
        except OSError as error:
            raise self._error("write", path, error) from error

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Paths of the files below a folder, sorted; empty when there is no such folder."""
        filesystem, base = self.filesystem()
        selector = fs.FileSelector(f"{base}/{folder}", recursive=True, allow_not_found=True)
        try:
            infos = filesystem.get_file_info(selector)
        except OSError as error:
            raise self._error("list", folder, error) from error
        files = [info.path for info in infos if info.type == fs.FileType.File]
        return sorted(path[len(base) + 1 :] for path in files if path.endswith(suffix))

    def require_writable(self) -> None:
        """Prove that a file can be written, before any work is done.

        Raises:
            StoreError: if it cannot.
        """
        probe = f".probe-{uuid.uuid4().hex}"
        self.write(probe, b"")
        filesystem, base = self.filesystem()
        filesystem.delete_file(f"{base}/{probe}")

    def _error(self, verb: str, path: str, error: OSError) -> StoreError:
        place = self.location(path)
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return StoreError(
                f"there is no room left to write {place}: free some space and run the same "
                "command again; finished shards are kept"
            )
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}:
            return StoreError(
                f"cannot {verb} {place}: {os.strerror(error.errno)}; choose another --store "
                "or change its permissions"
            )
        return StoreError(f"cannot {verb} {place}: {error}", transient=True)


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)
