"""Axial and coronal slices of a volume as a radiologist sees them.

Volumes, masks and boxes are given on the RAS+ grid, (x, y, z). Pictures follow the radiological
convention: the patient's right is on the left; axial slices are seen from inferior with anterior
up, coronal slices from anterior with superior up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Plane = Literal["axial", "coronal"]

_NORMAL_AXIS: dict[Plane, int] = {"axial": 2, "coronal": 1}
_VERTICAL_AXIS: dict[Plane, int] = {"axial": 1, "coronal": 2}


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice of a volume; `index` counts voxels along z if it is axial, along y if coronal."""

    plane: Plane
    index: int

    @property
    def normal_axis(self) -> int:
        """The axis of the volume (x, y, z) that the slice is perpendicular to."""
        return _NORMAL_AXIS[self.plane]

    def of(self, grid: NDArray[Any]) -> NDArray[Any]:
        """The rows and columns of the picture: a view of a grid (x, y, z)."""
        section: NDArray[Any] = np.moveaxis(grid, self.normal_axis, 0)[self.index]
        return section.T[::-1, ::-1]

    def aspect(self, shape_xyz: Sequence[int], spacing_xyz_mm: Sequence[float]) -> float:
        """Width over height of the picture, in mm."""
        vertical = _VERTICAL_AXIS[self.plane]
        width_mm = shape_xyz[0] * spacing_xyz_mm[0]
        return width_mm / (shape_xyz[vertical] * spacing_xyz_mm[vertical])

    def rectangle(
        self, box: NDArray[np.float64], shape_xyz: Sequence[int]
    ) -> tuple[float, float, float, float] | None:
        """Where a box lies in the picture: left, top, right, bottom in its pixels.

        Args:
            box: (2, 3), lowest and highest corner in voxels, half-open.
            shape_xyz: of the volume.

        Returns:
            None if the box does not reach the middle of the slice.
        """
        if not box[0, self.normal_axis] <= self.index + 0.5 <= box[1, self.normal_axis]:
            return None
        shown = [0, _VERTICAL_AXIS[self.plane]]
        # Both axes of the picture run against those of the volume.
        mirrored = np.asarray(shape_xyz)[shown] - box[::-1, shown]
        (left, top), (right, bottom) = mirrored.tolist()
        return left, top, right, bottom


def slice_areas(mask: NDArray[np.bool_], plane: Plane) -> NDArray[np.int64]:
    """Voxels of a mask (x, y, z) on every slice of a plane."""
    others = tuple(axis for axis in range(3) if axis != _NORMAL_AXIS[plane])
    areas: NDArray[np.int64] = np.count_nonzero(mask, axis=others)
    return areas


def largest_slices(mask: NDArray[np.bool_]) -> list[Slice]:
    """The axial and the coronal slice with most voxels of a mask, which must not be empty."""
    return [Slice(plane, int(slice_areas(mask, plane).argmax())) for plane in _NORMAL_AXIS]


def slices_at(point_xyz: Sequence[float], shape_xyz: Sequence[int]) -> list[Slice]:
    """The axial and the coronal slice through a point, given in voxel edges.

    A point beyond the volume, or on its far border, gets the nearest slice.
    """
    return [
        Slice(plane, int(np.clip(point_xyz[axis], 0, shape_xyz[axis] - 1)))
        for plane, axis in _NORMAL_AXIS.items()
    ]


def middle_slices(shape_xyz: Sequence[int]) -> list[Slice]:
    """The axial and the coronal slice through the middle of a volume."""
    return slices_at([n / 2 for n in shape_xyz], shape_xyz)
