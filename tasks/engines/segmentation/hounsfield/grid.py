"""The working grid: block means of the scan at about 1.5 mm, and morphology in millimetres.

Topology (which air is lung, which bright voxel is bone) is decided on this grid; surfaces are
then refined on the scan's own grid, where Hounsfield units can place them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from storage.images.types import Volume

WORKING_SPACING_MM = 1.5
"""Half of what must be resolved (bronchial walls, ribs' cortex: 3 mm), affordable in memory."""
MM3_PER_ML = 1000
AIR_HU = -1000
"""Lowest value: scanners pad outside the field of view with -1024 or -2048."""
DENSEST_HU = 3071
"""Highest value, the top of a 12-bit scanner's range; above is metal on an extended scale."""

Mask3D = NDArray[np.bool_]
Labels = NDArray[np.int32]
Spacing = tuple[float, float, float]
Window = tuple[slice, slice, slice]

IN_PLANE = np.zeros((3, 3, 3), bool)
"""Connects the face neighbours inside an axial slice, and no slice with the next."""
IN_PLANE[1, :, 1] = IN_PLANE[:, 1, 1] = True


@dataclass(frozen=True)
class Grid:
    """A scan and its working grid.

    scan_hu: int16 (x, y, z), the scan as it came.
    hu: int16 (x, y, z), block means clipped to -1000…3071 HU.
    factors: scan voxels per working voxel along x, y, z.
    spacing_mm: edge lengths of a working voxel along x, y, z.
    """

    scan_hu: NDArray[np.int16]
    hu: NDArray[np.int16]
    factors: tuple[int, int, int]
    spacing_mm: Spacing

    @classmethod
    def of(cls, volume: Volume) -> Grid:
        """Average the blocks of a volume that come closest to 1.5 mm along each axis."""
        mm = volume.spacing_xyz_mm
        fx, fy, fz = (
            min(max(1, round(WORKING_SPACING_MM / edge)), size)
            for edge, size in zip(mm, volume.hu.shape, strict=True)
        )
        stored = volume.hu.astype(np.int16, copy=False)
        hu = _block_means(stored, (fx, fy, fz))
        return cls(stored, hu, (fx, fy, fz), (mm[0] * fx, mm[1] * fy, mm[2] * fz))

    @property
    def voxel_ml(self) -> float:
        """Volume of a working voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / MM3_PER_ML

    def enlarge(self, mask: Mask3D) -> Mask3D:
        """Resample a mask of the working grid to the scan's grid, by repetition."""
        for axis, factor in enumerate(self.factors):
            if factor > 1:
                mask = np.repeat(mask, factor, axis=axis)
        # Blocks cover whole factors only; the last slices repeat the edge.
        missing = [(0, n - m) for n, m in zip(self.scan_hu.shape, mask.shape, strict=True)]
        return np.pad(mask, missing, mode="edge") if any(after for _, after in missing) else mask

    def dilate(self, mask: Mask3D, radius_mm: float) -> Mask3D:
        """Grow a mask by a ball."""
        grown = np.zeros_like(mask)
        if (window := self.window(mask, radius_mm)) is not None:
            grown[window] = _within(radius_mm, mask[window], self.spacing_mm)
        return grown

    def erode(self, mask: Mask3D, radius_mm: float) -> Mask3D:
        """Shrink a mask by a ball; the border of the volume does not erode it."""
        shrunk = np.zeros_like(mask)
        if (window := self.window(mask, max(self.spacing_mm))) is not None:
            shrunk[window] = ~_within(radius_mm, ~mask[window], self.spacing_mm)
        return shrunk

    def opening(self, mask: Mask3D, radius_mm: float) -> Mask3D:
        """Remove the parts of a mask that a ball does not fit into."""
        return self.dilate(self.erode(mask, radius_mm), radius_mm)

    def closing(self, mask: Mask3D, radius_mm: float) -> Mask3D:
        """Fill the gaps of a mask that a ball does not fit into."""
        return self.erode(self.dilate(mask, radius_mm), radius_mm)

    def window(self, mask: Mask3D, margin_mm: float) -> Window | None:
        """The box of a mask widened by a margin within the volume; None if the mask is empty."""
        extents = []
        for axis, (size, edge) in enumerate(zip(mask.shape, self.spacing_mm, strict=True)):
            across = tuple(other for other in range(3) if other != axis)
            hits = np.flatnonzero(mask.any(axis=across))
            if not hits.size:
                return None
            margin = int(np.ceil(margin_mm / edge))
            extents.append(slice(max(0, hits[0] - margin), min(size, hits[-1] + 1 + margin)))
        return extents[0], extents[1], extents[2]


def components(mask: Mask3D, structure: Mask3D | None = None) -> tuple[Labels, NDArray[np.int64]]:
    """Label connected components; sizes[i] is the voxel count of label i, and sizes[0] is 0."""
    labels = np.empty(mask.shape, np.int32)
    count = int(ndi.label(mask, structure, output=labels))
    sizes = np.bincount(labels.ravel(), minlength=count + 1).astype(np.int64)
    sizes[0] = 0
    return labels, sizes


def largest(mask: Mask3D) -> Mask3D:
    """The largest component of a mask; empty stays empty."""
    labels, sizes = components(mask)
    biggest: Mask3D = mask & (labels == sizes.argmax())
    return biggest


def touching(mask: Mask3D, seed: Mask3D) -> Mask3D:
    """The components of a mask that hold a voxel of the seed."""
    labels, count = ndi.label(mask)
    reached = np.zeros(count + 1, bool)
    reached[labels[seed]] = True
    reached[0] = False
    found: Mask3D = reached[labels]
    return found


def fill_holes(mask: Mask3D) -> Mask3D:
    """Fill the cavities of a mask that do not reach the border of the volume."""
    labels, count = ndi.label(~mask)
    open_to_border = np.zeros(count + 1, bool)
    for axis in range(3):
        for end in (0, -1):
            open_to_border[np.take(labels, end, axis=axis).ravel()] = True
    open_to_border[0] = False
    filled: Mask3D = ~open_to_border[labels]
    return filled


def _block_means(hu: NDArray[np.int16], factors: tuple[int, int, int]) -> NDArray[np.int16]:
    """Means over whole blocks; voxels beyond the last whole block are left out."""
    fx, fy, fz = factors
    nx, ny, nz = (n // f for n, f in zip(hu.shape, factors, strict=True))
    # Strided sums need one block-sized array; a reshape would copy the whole scan as int32.
    total = np.zeros((nx, ny, nz), np.int32)
    for i in range(fx):
        for j in range(fy):
            for k in range(fz):
                part = hu[i : nx * fx : fx, j : ny * fy : fy, k : nz * fz : fz]
                total += np.clip(part, AIR_HU, DENSEST_HU)
    return (total // (fx * fy * fz)).astype(np.int16)


def _within(radius_mm: float, mask: Mask3D, spacing_mm: Spacing) -> Mask3D:
    """Voxels no further than a radius from a mask."""
    if not mask.any():
        return mask.copy()
    near: Mask3D = ndi.distance_transform_edt(~mask, sampling=spacing_mm) <= radius_mm
    return near
