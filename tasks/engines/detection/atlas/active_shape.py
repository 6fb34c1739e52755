"""Bend a closed outline to the edges around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.engines.detection.atlas.edges import EdgeField
from tasks.engines.detection.atlas.outlines import Points, outward_normals


def bend(outline: Points, coarse: EdgeField, fine: EdgeField) -> Points:
    """Move an outline (n, 2) along its normals to the edges: far on coarse ones, then near.

    The search along the normals is that of an active shape model (Cootes et al. 1995), the
    smoothest strongest path by dynamic programming (Amini et al. 1990).
    """
    bent = outline
    for reach in (36.0, 24.0):  # twice: the first turns the normals towards a border far away
        bent = _smooth(_strongest_path(bent, coarse, reach, step=2.0, stiffness=0.01), 1.0)
    return _smooth(_strongest_path(bent, fine, reach=12.0, step=1.0, stiffness=0.03), 0.7)


def _strongest_path(
    outline: Points, edges: EdgeField, reach: float, step: float, stiffness: float
) -> Points:
    """Offset every point by up to `reach` px; neighbours pay `stiffness` × difference² (px²)."""
    normals = _smooth(outward_normals(outline), 1.5)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    offsets = np.arange(-reach, reach + step, step)
    candidates = outline[:, None] + normals[:, None] * offsets[:, None]
    # The pull to the start decides between edges of equal strength.
    cost = 0.15 * (offsets / reach) ** 2 - edges.support(candidates, normals[:, None])
    bending = stiffness * (offsets[:, None] - offsets) ** 2
    path = _cheapest_closed_path(cost, bending)
    bent: Points = outline + normals * offsets[path][:, None]
    return bent


def _cheapest_closed_path(
    cost: NDArray[np.float64], transition: NDArray[np.float64]
) -> NDArray[np.intp]:
    """State per point of a cycle: the middle of three unrolled turns, which forgets the ends."""
    turns = np.concatenate([cost, cost, cost])
    total = turns[0]
    origins = np.zeros(turns.shape, dtype=np.intp)
    for point in range(1, len(turns)):
        arrival = total[:, None] + transition
        origins[point] = arrival.argmin(axis=0)
        total = arrival.min(axis=0) + turns[point]
    path = np.zeros(len(turns), dtype=np.intp)
    path[-1] = total.argmin()
    for point in range(len(turns) - 1, 0, -1):
        path[point - 1] = origins[point][path[point]]
    return path[len(cost) : 2 * len(cost)]


def _smooth(points: Points, sigma: float) -> Points:
    smooth: Points = ndimage.gaussian_filter1d(points, sigma, axis=0, mode="wrap")
    return smooth
