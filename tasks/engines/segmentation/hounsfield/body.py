"""The patient's body, with the air inside it."""

from __future__ import annotations

import numpy as np

from tasks.engines.segmentation.hounsfield.grid import IN_PLANE, Grid, Mask3D, components

SKIN_HU = -300
OUTSIDE_AIR_HU = -900
"""Most air around a patient is below this, with clothes and blanket; most of a lung, above."""
TABLE_MM = 5.0
SMALLEST_PART = 0.1


def segment_body(grid: Grid) -> Mask3D:
    """Segment the body on the working grid: tissue and the air that it encloses.

    Air is outside where it reaches the side of its axial slice, unless it has the density of lung
    (a crop without air around it). The table, thin beside a body, goes with an opening. Parts
    smaller than a tenth of the largest are left out. Empty if the scan shows no body.
    """
    inside = grid.opening(~_outside_air(grid), TABLE_MM)
    labels, sizes = components(inside)
    if not sizes.any():
        return inside
    kept: Mask3D = (sizes >= SMALLEST_PART * sizes.max())[labels] & inside
    return kept


def _outside_air(grid: Grid) -> Mask3D:
    labels, sizes = components(grid.hu < SKIN_HU, IN_PLANE)
    clear_air = np.bincount(labels[grid.hu < OUTSIDE_AIR_HU], minlength=len(sizes))
    at_side = np.zeros(len(sizes), bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        at_side[side.ravel()] = True
    outside: Mask3D = (at_side & (clear_air > sizes / 2))[labels] & (labels > 0)
    return outside
