"""The grid of an image's file, and how arrays in a canonical orientation lie in it.

Three orientations meet here. All boxes are half-open, and voxel i covers [i, i + 1).

- *file*: voxels along the file's own axes; (1, rows, columns) of a radiograph;
- *array*, (depth, height, width): what the model reads. A radiograph is (1, rows, columns). The
  axes of a CT run towards superior, right and anterior (SRA), as in the paper's released code;
- *RAS+*, (x, y, z): the grid of `storage.images.types.Volume`, of stored masks and of
  `storage.imaging`. A radiograph has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from storage.images.types import Volume

Triple = tuple[int, int, int]

RAS_OF_ARRAY: Triple = (2, 0, 1)
"""The RAS axis (x, y, z) that depth, height and width of a CT's array run along."""

ARRAY_OF_RAS: Triple = (1, 2, 0)
"""The inverse: the axis of a CT's array that runs along x, y and z."""


@dataclass(frozen=True)
class FileGrid:
    """The grid of an image's file.

    shape: voxels along the file's axes; (1, rows, columns) of a radiograph.
    axes: the file's axis that each axis of the array runs along.
    reversed_axes: whether it runs against it.
    affine: (4, 4), the file's voxel index to RAS mm; None for a radiograph.
    """

    shape: Triple
    axes: Triple = (0, 1, 2)
    reversed_axes: tuple[bool, bool, bool] = (False, False, False)
    affine: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, volume: Volume) -> FileGrid:
        """The grid of a CT's file; that of a DICOM series is the volume's RAS+ grid."""
        affine = volume.affine if volume.stored_affine is None else volume.stored_affine
        ras_axis, direction = io_orientation(affine).astype(int).T
        depth, height, width = (int(np.flatnonzero(ras_axis == ras)[0]) for ras in RAS_OF_ARRAY)
        axes = (depth, height, width)
        against = (
            bool(direction[depth] < 0),
            bool(direction[height] < 0),
            bool(direction[width] < 0),
        )
        first, second, third = (volume.hu.shape[axis] for axis in ras_axis)
        return cls((first, second, third), axes, against, affine)

    @property
    def array_shape(self) -> Triple:
        """Voxels along depth, height and width."""
        depth, height, width = (self.shape[axis] for axis in self.axes)
        return depth, height, width

    @property
    def ras_shape(self) -> Triple:
        """Voxels of a CT along x, y and z."""
        depth, height, width = self.array_shape
        return height, width, depth

    @property
    def spacing_xyz_mm(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z.

        Raises:
            ValueError: for a radiograph, which does not lie in space.
        """
        lengths_mm = np.linalg.norm(self._placed_affine[:3, :3], axis=0)
        z, x, y = (float(lengths_mm[axis]) for axis in self.axes)
        return x, y, z

    @property
    def voxel_mm3(self) -> float | None:
        """Volume of one voxel; None for a radiograph."""
        return None if self.affine is None else float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_array(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Turn voxels on the file's grid to (depth, height, width): a view."""
        return np.flip(voxels.transpose(self.axes), self._flipped)

    def from_array(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn (depth, height, width) to the file's grid: a view."""
        return np.flip(array, self._flipped).transpose(np.argsort(self.axes))

    def to_ras(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Turn a CT's voxels on the file's grid to RAS+ (x, y, z): a view."""
        return self.to_array(voxels).transpose(ARRAY_OF_RAS)

    def from_ras(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `to_ras`."""
        return self.from_array(voxels.transpose(RAS_OF_ARRAY))

    def boxes_to_array(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Corners (n, 2, 3), lowest and highest in the file, to (depth, height, width)."""
        return self._mirrored(boxes[:, :, self.axes])

    def boxes_from_array(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of `boxes_to_array`."""
        return self._mirrored(boxes)[:, :, np.argsort(self.axes)]

    def boxes_to_ras(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Corners (n, 2, 3) in a CT's file, lowest and highest, to voxels x, y, z of RAS+."""
        return self.boxes_to_array(boxes)[:, :, ARRAY_OF_RAS]

    def corners_ras_mm(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """The eight corners (8, 3) of a box (2, 3) on the file's grid, in RAS mm.

        Raises:
            ValueError: for a radiograph, which does not lie in space.
        """
        affine = self._placed_affine
        corners = np.array(list(product(*box.T)))
        # The affine maps voxel centres, but boxes end at voxel edges.
        placed: NDArray[np.float64] = (corners - 0.5) @ affine[:3, :3].T + affine[:3, 3]
        return placed

    @property
    def _placed_affine(self) -> NDArray[np.float64]:
        if self.affine is None:
            raise ValueError("a radiograph has no position in the patient")
        return self.affine

    @property
    def _flipped(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.reversed_axes[axis])

    def _mirrored(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        mirrored = np.asarray(self.array_shape) - boxes[:, ::-1]
        return np.where(self.reversed_axes, mirrored, boxes)
