"""Stored voxels to int16 Hounsfield units on a RAS+ grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import ArrayLike, NDArray

from storage.images.types import ImageDescription, ImageError

_PADDING_HU = -2048  # what scanners write outside the field of view; here also for NaN
_SLAB = 16  # planes converted at a time, so that float copies stay small


def to_hounsfield(
    stored: NDArray[np.number], slope: float = 1.0, intercept: float = 0.0
) -> NDArray[np.int16]:
    """Scale stored values to Hounsfield units, rounded, clipped to int16, in C order."""
    hu = np.empty(stored.shape, np.int16)
    for start in range(0, len(stored), _SLAB):
        slab = stored[start : start + _SLAB] * float(slope) + float(intercept)
        np.nan_to_num(slab, copy=False, nan=_PADDING_HU)
        hu[start : start + _SLAB] = np.clip(np.rint(slab), -32768, 32767)
    return hu


def check_geometry(path: Path, affine: ArrayLike) -> NDArray[np.float64]:
    """Give back the affine if it places voxels in space.

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


def to_ras(
    stored: NDArray[np.number], affine: NDArray[np.float64]
) -> tuple[NDArray[np.number], NDArray[np.float64]]:
    """Flip and swap axes (a view) so that they run closest to right, anterior, superior (RAS+).

    The affine changes with them: every voxel keeps its place in the patient.
    """
    orientation = io_orientation(affine)
    turned: NDArray[np.number] = apply_orientation(stored, orientation)
    return turned, affine @ inv_ornt_aff(orientation, stored.shape)


def describe_grid(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> ImageDescription:
    """Describe the RAS+ grid of a CT that is stored with this shape and affine."""
    axes = np.argsort(io_orientation(affine)[:, 0])
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return ImageDescription(
        modality="CT",
        view=None,
        shape=tuple(shape[axis] for axis in axes),
        spacing_mm=tuple(float(lengths[axis]) for axis in axes),
    )
