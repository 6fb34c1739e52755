"""The patient's body, the air inside it included."""

from __future__ import annotations

import numpy as np

from tasks.engines.segmentation.hounsfield.grid import IN_PLANE, Grid, Mask3D, components

SKIN_HU = -300
"""Halfway between air and fat (-100 HU), and above most of a lung."""
OUTSIDE_AIR_HU = -900
"""Most air around a patient is below this, clothes and blanket included; most lung is above."""
CLEAR_SHARE = 0.5
"""Share of a component below that density from which it is the air around the patient."""
TABLE_MM = 5.0
"""Radius of the opening: tables and blankets are thinner than twice this, limbs are not."""
SMALLEST_PART = 0.1
"""Parts below this share of the largest are left out: equipment, not an arm or a leg."""


def segment_body(grid: Grid) -> Mask3D:
    """Segment the body on the working grid: tissue and the air that it encloses.

    Air is outside where it reaches the edge of its axial slice, unless it has the density of lung
    (a crop without air around it). An opening removes the table. Empty if the scan shows no body.
    """
    # The opening also removes the thin rim that partial volume leaves around air.
    inside = grid.opening(~_outside_air(grid), TABLE_MM)
    labels, sizes = components(inside)
    if not sizes.any():
        return inside
    kept: Mask3D = (sizes >= SMALLEST_PART * sizes.max())[labels] & inside
    return kept


def _outside_air(grid: Grid) -> Mask3D:
    """The air around the patient, slice by slice."""
    labels, sizes = components(grid.hu < SKIN_HU, IN_PLANE)
    clear_air = np.bincount(labels[grid.hu < OUTSIDE_AIR_HU], minlength=len(sizes))
    at_edge = np.zeros(len(sizes), bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        at_edge[edge.ravel()] = True
    outside: Mask3D = (at_edge & (clear_air > CLEAR_SHARE * sizes))[labels] & (labels > 0)
    return outside
