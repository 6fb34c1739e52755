"""Archives and gzip files, read to their last byte so that every checksum counts.

Python's `tarfile` takes a damaged header for the end of the archive and never reads the checksum
that stands behind it in a gzip file: what follows would be lost in silence. Nothing is unpacked to
a path that an archive names.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISLNK
from struct import Struct
from typing import IO, NamedTuple, Self, cast

DAMAGE = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile)
"""What Python's readers of archives and gzip files raise on one that is damaged."""

_ZIP = b"PK"
_GZIP = b"\x1f\x8b"
"""What zip and gzip files begin with."""

_CHUNK = 1 << 20
"""Bytes of a member in memory at once."""

_LONGEST_NAME = 1 << 20
"""Bytes of a header that holds a member's name and attributes; Linux has paths up to 4,096."""

_NAME_HEADERS = {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.LNKTYPE: "link",
    tarfile.SYMTYPE: "link",
}
_ENCRYPTED = 0x1
"""Bit of a zip member's flags."""

_ZIP_END = Struct("<10xH10x")
"""The record at the end of a zip archive, before its comment: how many members there are."""

_COUNT_ELSEWHERE = 0xFFFF
"""In place of the count of 65,535 members or more."""


class ArchiveError(Exception):
    """An archive that is damaged, or of a form that is not read; the message says why."""


class Member(NamedTuple):
    """A member of an archive.

    name: as the archive has it; it may be absolute, hold `..`, or occur twice.
    kind: `file`, `folder`, `link` or `special file`; only a file has content.
    """

    name: str
    kind: str


class Content:
    """What a member holds; nothing where it is no file. It can be read until the next member."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        """Up to so many bytes, or all; none at the end.

        Raises:
            ArchiveError: if the archive is damaged.
        """
        try:
            return self._stream.read(size) if self._stream else b""
        except DAMAGE as error:
            raise ArchiveError(what_is_wrong(error)) from error


def members(path: Path) -> Iterator[tuple[Member, Content]]:
    """Every member of a tar archive, gzipped or not, or of a zip archive, with its content.

    The last checksum stands at the end: what was read before counts for nothing if the iteration
    does not come to its end.

    Raises:
        ArchiveError: if the archive is damaged, cut short, encrypted, or of another kind.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(2)
        if begins == _ZIP:
            yield from _zip_members(path)
        else:
            yield from _tar_members(path, gzipped=begins == _GZIP)
    except DAMAGE as error:
        raise ArchiveError(what_is_wrong(error)) from error
    except (NotImplementedError, RuntimeError) as error:  # zipfile: compression, encryption
        raise ArchiveError(str(error)) from error


def what_is_wrong(error: BaseException) -> str:
    """An error of `DAMAGE` in a few words."""
    return (
        getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    )


class _Header(tarfile.TarInfo):
    """A tar header; one that is damaged is an error, where `tarfile` would take it for the end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise ArchiveError(f"{error} at byte {tar.offset:,}") from error

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _NAME_HEADERS and self.size > _LONGEST_NAME):
            raise ArchiveError(f"a header with a size of {self.size:,} at byte {tar.offset:,}")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]


def _tar_members(path: Path, gzipped: bool) -> Iterator[tuple[Member, Content]]:
    with (
        gzip.open(path) if gzipped else path.open("rb") as stream,
        tarfile.open(fileobj=stream, mode="r:", tarinfo=_Header) as tar,
    ):
        while info := tar.next():
            if tar.offset <= info.offset:
                raise ArchiveError(f"a header with a size below 0 at byte {info.offset:,}")
            kind = "special file" if info.issparse() else _KINDS.get(info.type, "special file")
            content = tar.extractfile(info) if kind == "file" else None
            yield Member(info.name, kind), Content(content)
            tar.members.clear()  # type: ignore[attr-defined] # some kB each
        _require_only_zeros(cast(IO[bytes], stream))


def _require_only_zeros(stream: IO[bytes]) -> None:
    """Read to the end of a tar archive, behind the block of zeros that ends its members."""
    while chunk := stream.read(_CHUNK):
        if chunk.strip(b"\0"):
            raise ArchiveError("it goes on behind its end")


def _zip_members(path: Path) -> Iterator[tuple[Member, Content]]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        with path.open("rb") as file:
            file.seek(-_ZIP_END.size - len(archive.comment), os.SEEK_END)
            (count,) = _ZIP_END.unpack(file.read(_ZIP_END.size))
        if count not in {len(infos), _COUNT_ELSEWHERE}:
            raise ArchiveError(f"its directory shows {len(infos)} of {count} members")
        for info in infos:
            if info.flag_bits & _ENCRYPTED:
                raise ArchiveError("it is encrypted: unpack it with its password")
            link = S_ISLNK(info.external_attr >> 16)
            kind = "folder" if info.is_dir() else "link" if link else "file"
            with archive.open(info) as content:
                yield Member(info.filename, kind), Content(content)
                while content.read(_CHUNK):
                    pass  # the checksum counts at the end
