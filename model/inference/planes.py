"""Cuts through an image as they are looked at, and what lies on them.

A CT is shown in the radiological convention: the patient's right on the left of the picture; axial
cuts seen from the feet with the front up, coronal ones from the front with the head up. A
radiograph is one cut, shown as stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours

from model.data.images import SourceImage
from storage.images.file_grid import FileGrid
from storage.records import Tag

AXIAL, CORONAL = 0, 2
"""Axes of the array (depth, height, width) that the cuts of a CT are across."""

_WINDOW_HU = (-1000.0, 500.0)  # wide enough for lung and soft tissue in one picture


@dataclass(frozen=True)
class Plane:
    """A cut through a SourceImage's array at `index` of `axis`, seen as a reader does."""

    axis: int
    index: int
    grid: FileGrid = field(compare=False)

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Height and width of a pixel; of a radiograph 1 and 1."""
        if self.grid.affine is None:
            return 1.0, 1.0
        lengths = np.linalg.norm(self.grid.affine[:3, :3], axis=0)[list(self.grid.axes)]
        first, second = np.delete(lengths, self.axis).tolist()
        return (second, first) if self._transposed else (first, second)

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The rows and columns of the picture from (depth, height, width)."""
        cut: NDArray[Any] = np.moveaxis(array, self.axis, 0)[self.index]
        if self.grid.affine is None:
            return cut
        return (cut.T if self._transposed else cut)[::-1, ::-1]

    def outlines(self, mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
        """Closed lines (n, 2) of x, y around a mask (depth, height, width), in picture pixels."""
        # The margin closes lines at the border; +0.5 puts pixel centres half a pixel in.
        margin = np.pad(self.of(mask), 1).astype(np.float32)
        return [line[:, ::-1] - 0.5 for line in find_contours(margin, 0.5)]

    def box(self, corners: NDArray[np.float64]) -> tuple[float, float, float, float] | None:
        """The rectangle left, top, right, bottom of a box (2, 3); None where the cut misses it."""
        if not corners[0, self.axis] <= self.index + 0.5 <= corners[1, self.axis]:
            return None
        edges = np.delete(corners, self.axis, axis=1)
        if self.grid.affine is not None:
            edges = (np.delete(self.grid.array_shape, self.axis) - edges)[::-1]
        if not self._transposed:
            edges = edges[:, ::-1]
        (left, top), (right, bottom) = edges.tolist()
        return left, top, right, bottom

    @property
    def _transposed(self) -> bool:
        return self.axis == AXIAL and self.grid.affine is not None


def grey(source: SourceImage, plane: Plane) -> NDArray[np.float32]:
    """The cut as 0 to 1 for the eye; that of a CT through a wide window."""
    pixels: NDArray[np.float32] = plane.of(source.pixels[0])
    if source.range_hu is None:
        return pixels
    low, high = source.range_hu
    black, white = _WINDOW_HU
    shown = (pixels * (high - low) + low - black) / (white - black)
    return np.clip(shown, 0, 1).astype(np.float32)


def planes_through(grid: FileGrid, region: Tag | None) -> list[Plane]:
    """The cuts that show a region best, or the middle ones; one for a radiograph."""
    if grid.affine is None:
        return [Plane(AXIAL, 0, grid)]
    centre = [n // 2 for n in grid.array_shape]
    if (
        region is not None
        and region.grounding.mask is not None
        and region.grounding.mask.voxel_count
    ):
        centre = _fullest(grid.to_array(region.grounding.mask.voxels))
    elif region is not None and region.grounding.boxes:
        corners = grid.boxes_to_array(region.grounding.boxes[0].corners[None])[0]
        centre = corners.mean(axis=0).astype(int).tolist()
    return [Plane(axis, centre[axis], grid) for axis in (AXIAL, CORONAL)]


def _fullest(mask: NDArray[np.bool_]) -> list[int]:
    """The index along each axis where the cut across it holds most of a mask."""
    others = [tuple(other for other in range(3) if other != axis) for axis in range(3)]
    return [int(np.count_nonzero(mask, axis=axes).argmax()) for axes in others]
