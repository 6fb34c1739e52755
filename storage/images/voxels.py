"""Stored voxels to Hounsfield units, or the signal of another modality, on a RAS+ grid."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import ArrayLike, NDArray

from storage.images.types import ImageDescription, ImageError

Voxel = TypeVar("Voxel", bound=np.generic)

_PADDING_HU = -2048  # what scanners write outside the field of view; here also for NaN

_VOXEL_MM = (0.1, 20.0)
"""Voxel sizes of clinical CT, with room: photon counting has 0.2 mm, thick slices 10 mm."""


def to_hounsfield(
    stored: NDArray[np.number], slope: float = 1.0, intercept: float = 0.0
) -> NDArray[np.int16]:
    """Scale stored values to Hounsfield units, rounded and clipped to int16.

    Takes 8 bytes a voxel for a while: give it some planes at a time.
    """
    hu = stored * float(slope) + float(intercept)
    np.nan_to_num(hu, copy=False, nan=_PADDING_HU)
    return np.clip(np.rint(hu, out=hu), -32768, 32767, out=hu).astype(np.int16)


def to_signal(
    stored: NDArray[np.number], slope: float = 1.0, intercept: float = 0.0
) -> NDArray[np.float32]:
    """Scale stored values of another modality than CT; 0 where they are no finite numbers."""
    signal = stored * float(slope) + float(intercept)
    finite: NDArray[np.floating] = np.nan_to_num(signal, copy=False, posinf=0.0, neginf=0.0)
    return finite.astype(np.float32)


def check_geometry(path: Path, affine: ArrayLike) -> NDArray[np.float64]:
    """Give back the affine if it places voxels in space.

    Raises:
        ImageError: `geometry_missing`, if it is not finite or flattens the grid;
            `geometry_inconsistent`, if its voxels cannot be a CT's.
    """
    matrix = check_directions(path, affine)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    smallest, largest = _VOXEL_MM
    if lengths.min() < smallest or lengths.max() > largest:
        size = " × ".join(f"{length:.4g}" for length in lengths)
        raise ImageError(
            "geometry_inconsistent",
            f"{path} has voxels of {size} mm, but a CT's measure {smallest:g} to {largest:g} mm: "
            "its spacing or its unit is wrong",
        )
    return matrix


def check_directions(path: Path, affine: ArrayLike) -> NDArray[np.float64]:
    """Give back the affine if its axes have directions, of whatever length.

    Raises:
        ImageError: `geometry_missing`, if it is not finite or flattens the grid.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise ImageError("geometry_missing", f"{path} has a geometry that is not finite")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not lengths.all() or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-3:
        raise ImageError("geometry_missing", f"{path} has a geometry that flattens its voxels")
    return matrix


def allocate_ras(
    shape: tuple[int, int, int], affine: NDArray[np.float64], dtype: type[Voxel]
) -> tuple[NDArray[Voxel], NDArray[Voxel], NDArray[np.float64]]:
    """Make room for the voxels of a file on the grid that runs right, anterior, superior (RAS+).

    Args:
        shape: of the voxels along the file's own axes.
        affine: their index to RAS mm.
        dtype: of the voxels.

    Returns:
        The uninitialized RAS+ array in C order; the same memory along the file's axes, to be
        written to; the affine of the RAS+ array. Every voxel keeps its place in the patient.
    """
    orientation = io_orientation(affine)
    size = dict(zip(orientation[:, 0].astype(int), shape, strict=True))
    ras = np.empty((size[0], size[1], size[2]), dtype)
    in_file = apply_orientation(ras, ornt_transform(axcodes2ornt("RAS"), orientation))
    return ras, in_file, affine @ inv_ornt_aff(orientation, shape)


def describe_grid(
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    modality: str = "CT",
    left_out: tuple[str, ...] = (),
) -> ImageDescription:
    """Describe the RAS+ grid of a volume that is stored with this shape and affine."""
    orientation = io_orientation(affine)
    axes = np.argsort(orientation[:, 0])
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return ImageDescription(
        modality=modality,
        view=None,
        shape=tuple(shape[axis] for axis in axes),
        spacing_mm=tuple(float(lengths[axis]) for axis in axes),
        left_out=left_out,
        affine=affine @ inv_ornt_aff(orientation, shape),
    )


def to_ras(voxels: NDArray[Voxel], affine: NDArray[np.float64]) -> NDArray[Voxel]:
    """Voxels along other axes on the RAS+ grid that `allocate_ras` makes; C order.

    affine: their index to RAS mm.
    """
    first, second, third = voxels.shape
    ras, in_file, _ = allocate_ras((first, second, third), affine, voxels.dtype.type)
    in_file[...] = voxels
    return ras
