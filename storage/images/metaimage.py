"""The header of MetaImage files: .mha, and .mhd beside their voxels.

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation. Places are in LPS mm; the matrix has one row
an axis.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.images.stored_grid import Reading, StoredGrid, VolumeFormat, volume_shape
from storage.images.text_header import (
    LONGEST_HEADER,
    LPS_TO_RAS,
    Inflated,
    affine_of,
    data_file,
    numbers,
)
from storage.images.types import ImageError
from storage.images.voxels import check_geometry

MAGIC = re.compile(rb"\s*(ObjectType|Comment|NDims|DimSize|ElementType)\s*=", re.I)

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MATRIX = ("TransformMatrix", "Rotation", "Orientation")
_ORIGIN = ("Offset", "Position", "Origin")
_SPACING = ("ElementSpacing", "ElementSize")


@contextmanager
def opened(path: Path, how: Reading) -> Iterator[tuple[io.BufferedIOBase, StoredGrid]]:
    """The file's plain bytes, and what the header says of the voxels: see `Opens`."""
    if how.channel is not None:
        raise ImageError("image_unsupported", f"{path}: only NIfTI files have channels")
    with path.open("rb") as stream:
        fields = _fields(path, stream)
        grid = _grid(path, fields, how.affine_mm)
        packed = fields.get("CompressedData", "").lower() == "true"
        name = fields["ElementDataFile"]
        if name.upper() == "LOCAL":
            start = stream.tell()
            yield _plain(stream, packed), grid if packed else _at(grid, start)
        else:
            with data_file(path, name).open("rb") as data:
                yield _plain(data, packed), grid


def _plain(stream: io.BufferedReader, packed: bool) -> io.BufferedIOBase:
    return _Forward(Inflated(stream)) if packed else stream


class _Forward(io.BufferedReader):
    """A stream that is read once, from its begin."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Only to the begin, before anything is read."""
        if offset or whence:
            raise io.UnsupportedOperation("seek")
        return 0


def _at(grid: StoredGrid, offset: int) -> StoredGrid:
    return StoredGrid(grid.shape, grid.affine_mm, grid.dtype, offset)


def _fields(path: Path, stream: io.BufferedReader) -> dict[str, str]:
    """What stands in the header, by key; the stream is then behind it."""
    fields: dict[str, str] = {}
    read = 0
    while line := stream.readline(LONGEST_HEADER):
        read += len(line)
        key, equals, value = line.decode("utf-8", "replace").partition("=")
        if not equals or read > LONGEST_HEADER:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields
    raise ImageError("image_unreadable", f"{path} has a header that does not say where its data is")


def _grid(path: Path, fields: dict[str, str], affine: NDArray[np.float64] | None) -> StoredGrid:
    kind = _TYPES.get(fields.get("ElementType", ""))
    channels = fields.get("ElementNumberOfChannels", "1")
    if kind is None or channels != "1" or fields.get("BinaryData", "True").lower() != "true":
        raise ImageError(
            "image_unsupported",
            f"{path} has {channels} channels of {fields.get('ElementType')}: one of binary numbers "
            "is needed",
        )
    big = any(
        fields.get(name, "").lower() == "true"
        for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    )
    sizes = tuple(int(word) for word in fields.get("DimSize", "").split())
    return StoredGrid(
        shape=volume_shape(path, sizes),
        affine_mm=_affine_mm(path, fields) if affine is None else affine,
        dtype=np.dtype((">" if big else "<") + kind),
    )


def _affine_mm(path: Path, fields: dict[str, str]) -> NDArray[np.float64]:
    matrix, origin, spacing = (
        next((fields[name] for name in names if name in fields), None)
        for names in (_MATRIX, _ORIGIN, _SPACING)
    )
    if origin is None or spacing is None:
        raise ImageError(
            "geometry_missing",
            f"{path} does not give its Offset and ElementSpacing: where its voxels lie is not "
            "known",
        )
    rows = np.eye(3) if matrix is None else numbers(path, matrix, 9).reshape(3, 3)
    columns = rows.T * numbers(path, spacing, 3)
    return check_geometry(path, affine_of(columns, numbers(path, origin, 3), LPS_TO_RAS))


FORMAT = VolumeFormat("MetaImage", opened)
