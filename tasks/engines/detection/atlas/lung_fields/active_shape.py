"""Active shape refinement: a closed contour is moved along its normals to nearby edges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.engines.detection.atlas.lung_fields.edges import EdgeField
from tasks.engines.detection.atlas.lung_fields.outlines import TINY, Points, outward_normals


class Pass(NamedTuple):
    """One search along the normals.

    reach_px: largest displacement of a point; step_px: between the displacements tried.
    stiffness: cost per px² of difference between the displacements of neighboring points.
    sigma: Gaussian smoothing of the result, in landmarks.
    """

    reach_px: float
    step_px: float
    stiffness: float
    sigma: float


COARSE_PASSES = (Pass(36.0, 2.0, 0.01, 1.0), Pass(24.0, 2.0, 0.01, 1.0))
"""Two passes: the first turns the normals towards a distant border. Displacements in px of the
working image (512 px), chosen on the radiographs of the inputs."""

FINE_PASS = Pass(12.0, 1.0, 0.03, 0.7)
"""Pixel by pixel, and stiffer: fine edges include ribs and vessels."""

DISPLACEMENT_COST = 0.15
"""Cost of the full displacement, in edge support (at most 0.5): decides between equal edges."""

NORMAL_SIGMA = 1.5
"""Gaussian smoothing of the normals, in landmarks: those at the sharp angles would cross."""


def refine(outline: Points, coarse: EdgeField, fine: EdgeField) -> Points:
    """Move an outline (n, 2) along its normals to the edges, first coarse and far, then fine.

    The search along the normals is that of an active shape model (Cootes et al. 1995); the path
    of least cost is found by dynamic programming (Amini et al. 1990).
    """
    for search in COARSE_PASSES:
        outline = _search_normals(outline, coarse, search)
    return _search_normals(outline, fine, FINE_PASS)


def _search_normals(outline: Points, edges: EdgeField, search: Pass) -> Points:
    """The outline after one search: strong edges, small displacements, smooth."""
    normals = _smooth(outward_normals(outline), NORMAL_SIGMA)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), TINY)
    offsets = np.arange(-search.reach_px, search.reach_px + search.step_px, search.step_px)
    candidates = outline[:, None] + normals[:, None] * offsets[:, None]
    displacement = DISPLACEMENT_COST * (offsets / search.reach_px) ** 2
    cost = displacement - edges.support(candidates, normals[:, None])
    bending = search.stiffness * (offsets[:, None] - offsets) ** 2
    # Point by point, noise would win: neighbors must move together.
    path = _cheapest_closed_path(cost, bending)
    moved: Points = outline + normals * offsets[path][:, None]
    return _smooth(moved, search.sigma)


def _cheapest_closed_path(
    cost: NDArray[np.float64], transition: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Index of the offset per point (n,) of a closed contour, by dynamic programming.

    Args:
        cost: (n, offsets), of each offset at each point.
        transition: (offsets, offsets), from one point's offset to the next one's.
    """
    # Three turns around the contour; the middle one does not depend on where the path begins.
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
