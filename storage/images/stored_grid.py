"""Volumes and label maps in files of one block of voxels: NIfTI, NRRD, MetaImage.

Each format reads its own header. The voxels are read here, some planes at a time, so that a file of
float64 takes no more memory than one of int16, and a header that promises more than the file holds
takes none.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from storage.images.decoding import decoding
from storage.images.header_correction import HeaderCorrection
from storage.images.hounsfield import check_hounsfield
from storage.images.limits import check_voxels
from storage.images.types import ImageDescription, ImageError, Volume
from storage.images.voxels import Voxel, allocate_ras, describe_grid, to_hounsfield, to_signal
from storage.masks import mask_box

_SLAB_BYTES = 8 << 20  # read and converted at a time

_WHOLE = 1e-3
"""How far a label may lie from a whole number: float32, times a slope of the header."""


@dataclass(frozen=True)
class StoredGrid:
    """What the header says of the voxels.

    shape, affine_mm: along the file's axes, the first of which runs fastest in the file; voxel
        index to RAS mm.
    dtype: with the byte order of the file.
    offset: bytes of the stream before the first voxel.
    slope, intercept: of the values.
    others: whether more follows the volume: further channels.
    """

    shape: tuple[int, int, int]
    affine_mm: NDArray[np.float64]
    dtype: np.dtype[np.number]
    offset: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    others: bool = False

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane in the file."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


@dataclass(frozen=True)
class Reading:
    """How a file is read, where that is not what its header says.

    channel: which of its volumes, from 0, where it holds several of one grid.
    affine_mm: voxel index to RAS mm, along the file's axes.
    correction: of the rescale and the spacing of a NIfTI file.
    """

    channel: int | None = None
    affine_mm: NDArray[np.float64] | None = None
    correction: HeaderCorrection | None = None


AS_IT_SAYS = Reading()


class Opens(Protocol):
    """Opens a file: its plain bytes, and what the header says of the voxels."""

    def __call__(
        self, path: Path, how: Reading, /
    ) -> AbstractContextManager[tuple[io.BufferedIOBase, StoredGrid]]:
        """Open a file."""
        ...


@dataclass(frozen=True)
class VolumeFormat:
    """A file format. Its methods are what `storage.images.volume_files` offers for any of them."""

    name: str
    opened: Opens

    def read(self, path: Path, how: Reading, modality: str) -> Volume:
        """Load a volume; only a CT's values are checked."""
        with decoding(path, self.name), self.opened(path, how) as (stream, grid):
            values = grid.slope, grid.intercept
            if modality != "CT":
                signal, affine = _read_ras(
                    path, stream, grid, np.float32, lambda stored: to_signal(stored, *values)
                )
                return Volume(signal, affine, modality, stored_affine=grid.affine_mm)
            hu, affine = _read_ras(
                path, stream, grid, np.int16, lambda stored: to_hounsfield(stored, *values)
            )
        check_hounsfield(path, hu)
        return Volume(hu, affine, stored_affine=grid.affine_mm)

    def read_label_ids(
        self, path: Path, how: Reading
    ) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
        """The label ids (x, y, z) on the RAS+ grid, and its affine."""
        with decoding(path, self.name), self.opened(path, how) as (stream, grid):
            return _read_labels(path, stream, grid)

    def describe(self, path: Path, how: Reading, modality: str) -> ImageDescription:
        """Describe a volume from its header."""
        with decoding(path, self.name), self.opened(path, how) as (_, grid):
            return describe_grid(grid.shape, grid.affine_mm, modality)

    def stored_affine(self, path: Path, how: Reading) -> NDArray[np.float64]:
        """Voxel index along the file's axes to RAS mm."""
        with decoding(path, self.name), self.opened(path, how) as (_, grid):
            return grid.affine_mm


def volume_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The sizes of one volume, held against the limit; trailing axes of one voxel do not count.

    Raises:
        ImageError: `image_unsupported`, `too_large`.
    """
    sizes = shape
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes = sizes[:-1]
    if len(sizes) != 3 or min(sizes) < 1:
        raise ImageError(
            "image_unsupported",
            f"{path} has the shape {shape}: one three-dimensional volume is needed",
        )
    check_voxels(path, sizes)
    x, y, z = sizes
    return x, y, z


def _whole_numbers(
    path: Path, grid: StoredGrid
) -> Callable[[NDArray[np.number]], NDArray[np.uint16]]:
    def whole(stored: NDArray[np.number]) -> NDArray[np.uint16]:
        scaled = stored
        if (grid.slope, grid.intercept) != (1, 0):
            scaled = stored * grid.slope + grid.intercept
        if scaled.dtype.kind == "u" and scaled.dtype.itemsize <= 2:
            return scaled.astype(np.uint16)  # masks are many: no value needs a look
        nearest = np.rint(scaled) if scaled.dtype.kind == "f" else scaled
        ids = nearest.astype(np.uint16)
        is_whole = nearest is scaled or bool((np.abs(nearest - scaled) <= _WHOLE).all())
        if not (is_whole and np.array_equal(ids, nearest)):
            raise ImageError(
                "image_unsupported", f"{path} is no label map: its values are not 0, 1, … 65535"
            )
        return ids

    return whole


def _read_ras(
    path: Path,
    stream: io.BufferedIOBase,
    grid: StoredGrid,
    dtype: type[Voxel],
    convert: Callable[[NDArray[np.number]], NDArray[Voxel]],
) -> tuple[NDArray[Voxel], NDArray[np.float64]]:
    """The converted voxels on the RAS+ grid, C order, and its affine in mm."""
    ras, in_file, affine = allocate_ras(grid.shape, grid.affine_mm, dtype)
    for start, slab in _slabs(path, stream, grid):
        in_file[:, :, start : start + slab.shape[2]] = convert(slab)
    return ras, affine


def _read_labels(
    path: Path, stream: io.BufferedIOBase, grid: StoredGrid
) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """The labels on the RAS+ grid; most voxels are background, and are not turned one by one."""
    whole = _whole_numbers(path, grid)
    ras, in_file, affine = allocate_ras(grid.shape, grid.affine_mm, np.uint16)
    ras[...] = 0
    for start, slab in _slabs(path, stream, grid):
        ids = whole(slab)
        x, y, z = box = mask_box(ids)
        in_file[x, y, start + z.start : start + z.stop] = ids[box]
    return ras, affine


def _slabs(
    path: Path, stream: io.BufferedIOBase, grid: StoredGrid
) -> Iterator[tuple[int, NDArray[np.number]]]:
    """Some planes at a time, each with the index of the first."""
    x, y, z = grid.shape
    stream.seek(grid.offset)
    step = max(1, _SLAB_BYTES // grid.plane_bytes)
    for start in range(0, z, step):
        planes = min(step, z - start)
        raw = stream.read(planes * grid.plane_bytes)
        if len(raw) < planes * grid.plane_bytes:
            raise ImageError(
                "image_unreadable",
                f"{path} is cut short, or its header is wrong: it ends after "
                f"{start + len(raw) // grid.plane_bytes} of {z} planes",
            )
        yield start, np.frombuffer(raw, grid.dtype).reshape((x, y, planes), order="F")
    # To the end: gzip checks its checksum only there, so damage before it would pass.
    if not grid.others and len(stream.read(grid.plane_bytes)) == grid.plane_bytes:
        raise ImageError(
            "image_unreadable",
            f"{path} holds more than the {x} × {y} × {z} voxels of its header: the header is wrong",
        )
