"""What the text headers of NRRD and MetaImage files have in common."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.images.types import ImageError
from storage.paths import OutsideError, path_below

LONGEST_HEADER = 1 << 20
"""Bytes. Segmentations of 3D Slicer describe each segment in some 600."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def numbers(path: Path, words: str, count: int) -> NDArray[np.float64]:
    """So many numbers separated by spaces.

    Raises:
        ImageError: `image_unreadable`.
    """
    try:
        found = np.array([float(word) for word in words.split()])
    except ValueError:
        found = np.empty(0)
    if len(found) != count:
        raise ImageError(
            "image_unreadable",
            f"{path} has a header with {words[:80]!r} where {count} numbers belong",
        )
    return found


def affine_of(
    columns: NDArray[np.float64], origin: NDArray[np.float64], to_ras: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The voxel index to RAS mm, of one column an axis and the place of the first voxel."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    return np.asarray(to_ras @ affine)


def data_file(path: Path, name: str) -> Path:
    """The file beside a header that holds the voxels.

    Raises:
        ImageError: `image_unsupported` for a list of files; `image_not_found`.
    """
    if "%" in name or name.upper().startswith("LIST"):
        raise ImageError(
            "image_unsupported",
            f"{path} has its voxels in one file a slice: save it as one file",
        )
    try:
        data = path_below(path.parent, name)
    except OutsideError as error:
        raise ImageError("image_unsupported", f"{path}: its voxels: {error}") from error
    if not data.is_file():
        raise ImageError("image_not_found", f"{path} has its voxels in {name}, which is not there")
    return data


class Inflated(io.RawIOBase):
    """The plain bytes of a zlib stream, a little at a time."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as one step of inflating goes; 0 at the end.

        Raises:
            EOFError: if the stream is cut short.
        """
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._stream.read(1 << 16)
            if not packed:
                raise EOFError("its compressed voxels end too early")
            plain = self._inflate.decompress(packed, len(buffer))
            if plain:
                buffer[: len(plain)] = plain
                return len(plain)
        return 0
