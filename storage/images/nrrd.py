"""The header of NRRD files: .nrrd, .seg.nrrd of 3D Slicer, and .nhdr beside their voxels.

Format: https://teem.sourceforge.net/nrrd/format.html. A segmentation of 3D Slicer has a voxel's
label as its value; one of several layers, whose segments overlap, has a fourth axis and is refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.images.stored_grid import Reading, StoredGrid, VolumeFormat, volume_shape
from storage.images.text_header import LONGEST_HEADER, LPS_TO_RAS, affine_of, data_file, numbers
from storage.images.types import ImageError
from storage.images.voxels import check_geometry

MAGIC = b"NRRD000"

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_SPACES = {  # patient coordinates, each with its short name
    "right-anterior-superior": np.eye(4),
    "ras": np.eye(4),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "las": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "left-posterior-superior": LPS_TO_RAS,
    "lps": LPS_TO_RAS,
}
_VECTOR = re.compile(r"\(([^)]*)\)|none")


@contextmanager
def opened(path: Path, how: Reading) -> Iterator[tuple[io.BufferedIOBase, StoredGrid]]:
    """The file's plain bytes, and what the header says of the voxels: see `Opens`."""
    if how.channel is not None:
        raise ImageError("image_unsupported", f"{path}: only NIfTI files have channels")
    with path.open("rb") as stream:
        fields = _fields(path, stream)
        grid = _grid(path, fields, how.affine_mm)
        if beside := fields.get("datafile"):
            with data_file(path, beside).open("rb") as data:
                yield _plain(path, fields, data), grid
        else:
            yield _plain(path, fields, stream), grid


def _fields(path: Path, stream: io.BufferedReader) -> dict[str, str]:
    """What stands in the header, by field; the stream is then at its first byte of voxels."""
    read = 0
    fields: dict[str, str] = {}
    stream.readline(LONGEST_HEADER)
    while line := stream.readline(LONGEST_HEADER):
        read += len(line)
        if read > LONGEST_HEADER:
            break
        words = line.decode("utf-8", "replace").strip()
        if not words:
            return fields
        name, colon, value = words.partition(":")
        if colon and not words.startswith("#"):
            fields[name.strip().lower().replace(" ", "")] = value.strip().lstrip("=")
        if name.strip().lower().replace(" ", "") == "datafile":
            fields["datafile"] = value.strip()
    if "datafile" in fields:
        return fields  # a detached header need not end with an empty line
    raise ImageError("image_unreadable", f"{path} has a header without an end")


def _grid(path: Path, fields: dict[str, str], affine: NDArray[np.float64] | None) -> StoredGrid:
    try:
        sizes = tuple(int(word) for word in fields["sizes"].split())
        kind = next(kind for kind, names in _TYPES.items() if fields["type"].lower() in names)
    except (KeyError, ValueError, StopIteration) as error:
        raise ImageError(
            "image_unreadable", f"{path} has a header without sizes or a type of numbers"
        ) from error
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "little").lower(), "<")
    shape = volume_shape(path, sizes)
    return StoredGrid(
        shape=shape,
        affine_mm=_affine_mm(path, fields) if affine is None else affine,
        dtype=np.dtype(order + kind),
    )


def _affine_mm(path: Path, fields: dict[str, str]) -> NDArray[np.float64]:
    to_ras = _SPACES.get(fields.get("space", "").lower())
    directions = _vectors(path, fields.get("spacedirections", ""))
    origin = _vectors(path, fields.get("spaceorigin", ""))
    if to_ras is None or len(directions) != 3 or len(origin) != 1:
        raise ImageError(
            "geometry_missing",
            f"{path} does not give its space, space directions and space origin: where its "
            "voxels lie is not known",
        )
    return check_geometry(path, affine_of(np.stack(directions, axis=1), origin[0], to_ras))


def _vectors(path: Path, words: str) -> list[NDArray[np.float64]]:
    found = [match.group(1) for match in _VECTOR.finditer(words)]
    return [numbers(path, inside.replace(",", " "), 3) for inside in found if inside is not None]


def _plain(path: Path, fields: dict[str, str], stream: io.BufferedReader) -> io.BufferedIOBase:
    encoding = fields.get("encoding", "raw").lower()
    if int(fields.get("lineskip") or 0) or int(fields.get("byteskip") or 0):
        raise ImageError("image_unsupported", f"{path} skips lines or bytes before its voxels")
    if encoding in ("gzip", "gz"):
        return gzip.GzipFile(fileobj=stream)
    if encoding in ("bzip2", "bz2"):
        return bz2.BZ2File(stream)
    if encoding == "raw":
        return _From(stream)
    raise ImageError("image_unsupported", f"{path} has its voxels in the encoding {encoding}")


class _From(io.BufferedIOBase):
    """A stream that begins where another one stands."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._start = stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from this stream's begin."""
        return self._stream.seek(self._start + offset, whence) - self._start

    def read(self, size: int | None = -1) -> bytes:
        """As of any stream."""
        return self._stream.read(size)


FORMAT = VolumeFormat("NRRD", opened)
