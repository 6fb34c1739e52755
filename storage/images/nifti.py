"""CT volumes in NIfTI files.

Format: NIfTI-1.1 and NIfTI-2 (https://nifti.nimh.nih.gov), read with nibabel.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from storage.images.decoding import decoding
from storage.images.types import ImageDescription, ImageError, Volume
from storage.images.voxels import check_geometry, describe_grid, to_hounsfield, to_ras

_GZIP_MAGIC = b"\x1f\x8b"
_NIFTI2_HEADER_SIZE = 540


def read(path: Path) -> Volume:
    """Load a NIfTI file as a CT volume."""
    with decoding(path, "NIfTI"), _opened(path) as (stream, image):
        shape, stored_affine = _grid(path, image)
        proxy = image.dataobj
        stored = proxy.get_unscaled().reshape(shape)
        _drain(stream)
        stored, affine = to_ras(stored, stored_affine)
        hu = to_hounsfield(stored, proxy.slope, proxy.inter)
        return Volume(hu, affine, stored_affine=stored_affine)


def describe(path: Path) -> ImageDescription:
    """Describe a NIfTI file from its header."""
    with decoding(path, "NIfTI"), _opened(path) as (_, image):
        return describe_grid(*_grid(path, image))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[io.BufferedIOBase, Any]]:
    """The file's plain bytes and the image over them; the header is read, the voxels are not."""
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
    with gzip.GzipFile(path) if zipped else path.open("rb") as stream:
        size = stream.read(4)
        stream.seek(0)
        is_second = _NIFTI2_HEADER_SIZE in (
            int.from_bytes(size, "little"),
            int.from_bytes(size, "big"),
        )
        yield stream, (nib.Nifti2Image if is_second else nib.Nifti1Image).from_stream(stream)


def _grid(path: Path, image: Any) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    shape = tuple(image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or 0 in shape:
        raise ImageError(
            "image_unsupported",
            f"{path} has the shape {shape}: one three-dimensional volume is needed",
        )
    if image.get_data_dtype().kind not in "iuf":
        raise ImageError(
            "image_unsupported", f"{path} holds colours or complex numbers, not Hounsfield units"
        )
    if not (image.header["qform_code"] > 0 or image.header["sform_code"] > 0):
        raise ImageError(
            "geometry_missing",
            f"{path} has neither a qform nor an sform: where its voxels lie is not known",
        )
    x, y, z = shape
    return (x, y, z), check_geometry(path, image.affine)


def _drain(stream: io.BufferedIOBase) -> None:
    """Read to the end: gzip checks its checksum only there, so damage before it would pass."""
    while stream.read(1 << 20):
        pass
