"""The header of NIfTI files, read with nibabel.

Format: NIfTI-1.1 and NIfTI-2 (https://nifti.nimh.nih.gov).
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from storage.images.decoding import decoding
from storage.images.nifti_geometry import affine_mm, affine_of_spacing
from storage.images.stored_grid import AS_IT_SAYS, Reading, StoredGrid, VolumeFormat, volume_shape
from storage.images.types import ImageError

_GZIP_MAGIC = b"\x1f\x8b"
_FIRST_BYTES = 8 << 20  # of the voxels, to see what values there are
_SIZE_OF_FIRST, _SIZE_OF_SECOND = 348, 540  # bytes of a NIfTI-1 and of a NIfTI-2 header
_PAIR = {_SIZE_OF_FIRST: slice(344, 347), _SIZE_OF_SECOND: slice(4, 7)}  # where the magic is


def read_grid(path: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """The shape along the file's own axes and the affine in mm, from the header."""
    with decoding(path, FORMAT.name), opened(path, AS_IT_SAYS) as (_, grid):
        return grid.shape, grid.affine_mm


@contextmanager
def opened(path: Path, how: Reading) -> Iterator[tuple[io.BufferedIOBase, StoredGrid]]:
    """The file's plain bytes, and what the header says of the voxels: see `Opens`."""
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
    with gzip.GzipFile(path) if zipped else path.open("rb") as stream:
        yield stream, _grid(path, _header(path, stream), how)


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


def first_planes(path: Path) -> NDArray[np.float64]:
    """The values, as the header scales them, of the first planes of a NIfTI file, some 8 MB of it.

    Raises:
        ImageError: as for a CT.
    """
    with decoding(path, FORMAT.name), opened(path, AS_IT_SAYS) as (stream, grid):
        stream.seek(grid.offset)
        planes = min(grid.shape[2], max(1, _FIRST_BYTES // grid.plane_bytes))
        raw = stream.read(planes * grid.plane_bytes)
        whole = len(raw) // grid.dtype.itemsize * grid.dtype.itemsize
        return np.frombuffer(raw[:whole], grid.dtype) * grid.slope + grid.intercept


def _grid(path: Path, header: nib.Nifti1Header, how: Reading) -> StoredGrid:
    stored = tuple(int(size) for size in header.get_data_shape())
    channel, channels = how.channel, prod(stored[3:])
    if channel is not None and channel >= channels:
        raise ImageError(
            "image_unsupported", f"{path} has {channels} channels: there is no {channel}"
        )
    shape = volume_shape(path, stored if channel is None else stored[:3])
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ImageError(
            "image_unsupported", f"{path} holds colours or complex numbers, not Hounsfield units"
        )
    if how.correction is None:
        slope, intercept = header.get_slope_inter()
    else:
        slope, intercept = how.correction.slope, how.correction.intercept
    return StoredGrid(
        shape=shape,
        affine_mm=_affine_mm(path, header, how, shape),
        dtype=dtype,
        offset=header.get_data_offset() + (channel or 0) * prod(shape) * dtype.itemsize,
        slope=1.0 if slope is None else slope,  # 0 and NaN mean that nothing is scaled
        intercept=0.0 if intercept is None else intercept,
        others=channel is not None and channel + 1 < channels,
    )


def _affine_mm(
    path: Path, header: nib.Nifti1Header, how: Reading, shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    if how.affine_mm is not None:
        return how.affine_mm
    if how.correction is not None:
        return affine_of_spacing(path, header, how.correction.spacing_mm)
    return affine_mm(path, header, shape)


FORMAT = VolumeFormat("NIfTI", opened)
