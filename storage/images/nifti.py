"""CT volumes and label maps in NIfTI files.

Format: NIfTI-1.1 and NIfTI-2 (https://nifti.nimh.nih.gov). nibabel reads the header; the voxels
are read here, some planes at a time, so that a file of float64 takes no more memory than one of
int16, and a header that promises more than the file holds takes none.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from storage.images.decoding import decoding
from storage.images.header_correction import HeaderCorrection
from storage.images.hounsfield import check_hounsfield
from storage.images.limits import check_voxels
from storage.images.nifti_geometry import affine_mm, affine_of_spacing
from storage.images.types import ImageDescription, ImageError, Volume
from storage.images.voxels import Voxel, allocate_ras, describe_grid, to_hounsfield

_GZIP_MAGIC = b"\x1f\x8b"
_SIZE_OF_FIRST, _SIZE_OF_SECOND = 348, 540  # bytes of a NIfTI-1 and of a NIfTI-2 header
_PAIR = {_SIZE_OF_FIRST: slice(344, 347), _SIZE_OF_SECOND: slice(4, 7)}  # where the magic is
_SLAB_BYTES = 8 << 20  # read and converted at a time


@dataclass(frozen=True)
class _Grid:
    """What the header says of the voxels.

    shape, affine_mm: along the file's axes, the first of which runs fastest in the file.
    dtype: with the byte order of the file.
    offset: bytes before the first voxel.
    slope, intercept: of the values.
    """

    shape: tuple[int, int, int]
    affine_mm: NDArray[np.float64]
    dtype: np.dtype[np.number]
    offset: int
    slope: float
    intercept: float

    @property
    def plane_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


def read(path: Path, correction: HeaderCorrection | None = None) -> Volume:
    """Load a NIfTI file as a CT volume."""
    with decoding(path, "NIfTI"), _opened(path, correction) as (stream, grid):
        hu, affine = _read_ras(
            path,
            stream,
            grid,
            np.int16,
            lambda stored: to_hounsfield(stored, grid.slope, grid.intercept),
        )
    check_hounsfield(path, hu)
    return Volume(hu, affine, stored_affine=grid.affine_mm)


def read_label_ids(path: Path) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """The label ids (x, y, z), C order, of a NIfTI file on its RAS+ grid, and the affine in mm.

    Raises:
        ImageError: as for a CT; `image_unsupported`, if a value is not a whole number of 16 bits.
    """

    def whole(stored: NDArray[np.number]) -> NDArray[np.uint16]:
        scaled = stored
        if (grid.slope, grid.intercept) != (1, 0):
            scaled = stored * grid.slope + grid.intercept
        ids = scaled.astype(np.uint16)
        if not np.array_equal(ids, scaled):
            raise ImageError(
                "image_unsupported", f"{path} is no label map: its values are not 0, 1, … 65535"
            )
        return ids

    with decoding(path, "NIfTI"), _opened(path) as (stream, grid):
        return _read_ras(path, stream, grid, np.uint16, whole)


def describe(path: Path, correction: HeaderCorrection | None = None) -> ImageDescription:
    """Describe a NIfTI file from its header."""
    with decoding(path, "NIfTI"), _opened(path, correction) as (_, grid):
        return describe_grid(grid.shape, grid.affine_mm)


def first_planes(path: Path) -> NDArray[np.float64]:
    """The values, as the header scales them, of the first planes of a NIfTI file, some 8 MB of it.

    Raises:
        ImageError: as for a CT.
    """
    with decoding(path, "NIfTI"), _opened(path) as (stream, grid):
        stream.seek(grid.offset)
        planes = min(grid.shape[2], max(1, _SLAB_BYTES // grid.plane_bytes))
        raw = stream.read(planes * grid.plane_bytes)
        whole = len(raw) // grid.dtype.itemsize * grid.dtype.itemsize
        return np.frombuffer(raw[:whole], grid.dtype) * grid.slope + grid.intercept


def read_grid(path: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """The shape along the file's own axes and the affine in mm, from the header."""
    with decoding(path, "NIfTI"), _opened(path) as (_, grid):
        return grid.shape, grid.affine_mm


@contextmanager
def _opened(
    path: Path, correction: HeaderCorrection | None = None
) -> Iterator[tuple[io.BufferedIOBase, _Grid]]:
    """The file's plain bytes, and what the header says of the voxels."""
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
    with gzip.GzipFile(path) if zipped else path.open("rb") as stream:
        yield stream, _grid(path, _header(path, stream), correction)


def _header(path: Path, stream: io.BufferedIOBase) -> nib.Nifti1Header:
    start = stream.read(_SIZE_OF_SECOND)
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    size = _SIZE_OF_SECOND if _SIZE_OF_SECOND in sizes else _SIZE_OF_FIRST
    if start[_PAIR[size]] in (b"ni1", b"ni2"):
        raise ImageError(
            "image_unsupported",
            f"{path} is one half of a .hdr and .img pair: convert the two to one .nii.gz file",
        )
    kind: Any = nib.Nifti2Header if size == _SIZE_OF_SECOND else nib.Nifti1Header
    header: nib.Nifti1Header = kind(start[:size])
    return header


def _grid(path: Path, header: nib.Nifti1Header, correction: HeaderCorrection | None) -> _Grid:
    shape = tuple(int(size) for size in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise ImageError(
            "image_unsupported",
            f"{path} has the shape {shape}: one three-dimensional volume is needed",
        )
    check_voxels(path, shape)
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ImageError(
            "image_unsupported", f"{path} holds colours or complex numbers, not Hounsfield units"
        )
    x, y, z = shape
    if correction is None:
        slope, intercept = header.get_slope_inter()
        affine = affine_mm(path, header, (x, y, z))
    else:
        slope, intercept = correction.slope, correction.intercept
        affine = affine_of_spacing(path, header, correction.spacing_mm)
    return _Grid(
        shape=(x, y, z),
        affine_mm=affine,
        dtype=dtype,
        offset=header.get_data_offset(),
        slope=1.0 if slope is None else slope,  # 0 and NaN mean that nothing is scaled
        intercept=0.0 if intercept is None else intercept,
    )


def _read_ras(
    path: Path,
    stream: io.BufferedIOBase,
    grid: _Grid,
    dtype: type[Voxel],
    convert: Callable[[NDArray[np.number]], NDArray[Voxel]],
) -> tuple[NDArray[Voxel], NDArray[np.float64]]:
    """The converted voxels on the RAS+ grid, C order, and its affine in mm."""
    x, y, z = grid.shape
    ras, in_file, affine = allocate_ras(grid.shape, grid.affine_mm, dtype)
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
        slab = np.frombuffer(raw, grid.dtype).reshape((x, y, planes), order="F")
        in_file[:, :, start : start + planes] = convert(slab)
    # To the end: gzip checks its checksum only there, so damage before it would pass.
    if len(stream.read(grid.plane_bytes)) == grid.plane_bytes:
        raise ImageError(
            "image_unreadable",
            f"{path} holds more than the {x} × {y} × {z} voxels of its header: the header is wrong",
        )
    return ras, affine
