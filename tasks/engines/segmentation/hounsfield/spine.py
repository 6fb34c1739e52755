"""The spinal canal, slice by slice: soft tissue enclosed by the bone of the neural arch.

The canal is the only soft tissue that bone encloses in every axial slice from the skull to the
sacrum. Its course is the path of highest enclosure through the slices (dynamic programming); the
positions of the vertebrae follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from tasks.engines.segmentation.hounsfield.grid import Grid, Mask3D

CANAL_HU = (-100, 150)
"""Epidural fat to spinal cord and contrast medium in its sheath; bone is above."""
RAYS, LEAST_RAYS = 8, 6
"""Directions in the axial slice, and how many must meet bone: the foramina open two of them."""
REACH_MM = 25.0
"""A ray from the middle of the canal meets bone within this distance."""
RAY_START_MM, RAY_STEP = 2.0, 1.2
"""Where a ray begins, and its step in working voxels: less than the diagonal (1.4), so that few
voxels are skipped."""
CANAL_RADIUS_MM = 4.0
"""Half the radius of the canal: the scale on which enclosure is averaged and looked up."""
OFF_CENTER_MM = 60.0
"""Standard deviation of the canal's distance from the body's midline; large, for scoliosis and
patients off center."""
SLOPE_X, SLOPE_Y = 0.5, 0.8
"""Steepest course, per unit of z: sideways (scoliosis), and front to back (sacrum)."""
SMOOTHING_MM = 40.0
"""Median filter along the canal: longer than a vertebra with its disc (25 to 40 mm)."""
BODY_CENTER_MM, BODY_RADIUS_MM = 22.0, 10.0
"""A disc anterior to the canal that lies inside every vertebral body, cervical to lumbar."""


@dataclass(frozen=True)
class Spine:
    """The course of the spinal canal.

    right_mm, front_mm: (x, 1, z) and (1, y, z), the distance of a voxel to the right of and
        anterior to the canal in its axial slice.
    certain: (z,), whether bone encloses the canal there; elsewhere the course is extrapolated.
    """

    right_mm: NDArray[np.float32]
    front_mm: NDArray[np.float32]
    certain: NDArray[np.bool_]

    def canal(self, radius_mm: float) -> Mask3D:
        """A tube around the middle of the canal, where it is certain."""
        tube: Mask3D = (self.right_mm**2 + self.front_mm**2 < radius_mm**2) & self.certain
        return tube

    def vertebral_cores(self) -> Mask3D:
        """A tube that runs inside the vertebral bodies and discs, where the canal is certain."""
        ahead_mm = self.front_mm - BODY_CENTER_MM
        tube: Mask3D = (self.right_mm**2 + ahead_mm**2 < BODY_RADIUS_MM**2) & self.certain
        return tube

    def zone(self, half_width_mm: float, depth_mm: float) -> Mask3D:
        """Within a distance beside the canal and anterior to it; all that is posterior to it."""
        zone: Mask3D = (np.abs(self.right_mm) < half_width_mm) & (self.front_mm < depth_mm)
        return zone


def find_spine(grid: Grid, body: Mask3D, walls: Mask3D) -> Spine:
    """Follow the spinal canal.

    Args:
        grid: the scan.
        body: the patient, near whose midline the canal is expected.
        walls: dense voxels that may be bone, without known vessels.
    """
    dx, dy, dz = grid.spacing_mm
    least, most = CANAL_HU
    soft = body & (grid.hu > least) & (grid.hu < most)
    seen = np.where(soft, _enclosure(grid, walls), 0).astype(np.uint8)
    score = seen.astype(np.float32) / RAYS
    score = ndi.gaussian_filter(score, [CANAL_RADIUS_MM / mm for mm in grid.spacing_mm])
    columns, rows = np.arange(body.shape[0]), np.arange(body.shape[1])
    across = np.flatnonzero(body.any(axis=(1, 2)))
    middle = across.mean() if across.size else body.shape[0] / 2
    central = np.exp(-0.5 * ((columns - middle) * dx / OFF_CENTER_MM) ** 2).astype(np.float32)
    steps = int(np.ceil(SLOPE_X * dz / dx)), int(np.ceil(SLOPE_Y * dz / dy))
    x, y = _best_path(score * central[:, None, None], *steps)
    along = int(SMOOTHING_MM / dz) | 1  # odd: a median filter needs a middle
    near = [2 * round(CANAL_RADIUS_MM / mm) + 1 for mm in (dx, dy)]
    rays = ndi.maximum_filter(seen, (*near, 1))[x, y, np.arange(len(x))]
    enclosed = ndi.median_filter(rays, along, mode="nearest") >= LEAST_RAYS
    certain = _longest_run(enclosed & (np.abs(x - middle) * dx < OFF_CENTER_MM))
    right_mm = ((columns[:, None, None] - x) * dx).astype(np.float32)
    front_mm = ((rows[:, None] - y) * dy).astype(np.float32)[None]
    return Spine(right_mm, front_mm, certain)


def _longest_run(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Only the longest run of true flags: other bones enclose tissue, the spine is in one piece."""
    labels, _ = ndi.label(flags)
    sizes = np.bincount(labels)
    sizes[0] = 0
    run: NDArray[np.bool_] = flags & (labels == sizes.argmax())
    return run


def _enclosure(grid: Grid, walls: Mask3D) -> NDArray[np.uint8]:
    """In how many of the directions of its axial slice a voxel has a wall within reach."""
    dx, dy, _ = grid.spacing_mm
    count = np.zeros(walls.shape, np.uint8)
    for angle in np.arange(RAYS) * 2 * np.pi / RAYS:
        hit = np.zeros_like(walls)
        for far_mm in np.arange(RAY_START_MM, REACH_MM, RAY_STEP * min(dx, dy)):
            # Shifting the whole volume casts one step of all rays of this direction at once.
            i, j = round(far_mm * np.cos(angle) / dx), round(far_mm * np.sin(angle) / dy)
            (to_x, from_x), (to_y, from_y) = _shift(i), _shift(j)
            hit[to_x, to_y] |= walls[from_x, from_y]
        count += hit
    return count


def _shift(by: int) -> tuple[slice, slice]:
    """Slices that carry index n + by to index n."""
    if by >= 0:
        return slice(None, -by or None), slice(by, None)
    return slice(-by, None), slice(None, by)


def _best_path(
    score: NDArray[np.float32], step_x: int, step_y: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices x and y for each slice, of highest total score with bounded steps."""
    total = score.copy()
    reach = (2 * step_x + 1, 2 * step_y + 1)
    for level in range(1, score.shape[2]):
        total[..., level] += ndi.maximum_filter(total[..., level - 1], reach)
    path = np.zeros((2, score.shape[2]), np.int64)
    x0, y0, window = 0, 0, total[..., -1]
    for level in range(score.shape[2] - 1, -1, -1):
        x, y = np.unravel_index(int(window.argmax()), window.shape)
        # Backwards from the best end, within the window that the forward pass allowed.
        path[:, level] = x0 + x, y0 + y
        x0, y0 = max(0, path[0, level] - step_x), max(0, path[1, level] - step_y)
        window = total[
            x0 : path[0, level] + step_x + 1, y0 : path[1, level] + step_y + 1, level - 1
        ]
    return path[0], path[1]
