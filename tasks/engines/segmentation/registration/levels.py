"""Vertebral levels, checked by counting the vertebrae of the scan.

Registration may put a label on the neighboring vertebra, or stretch it over two: all look alike. A
vertebral body has a waist, between its endplates, where the cross-section holds the least dense
bone. Every label must hold exactly one waist. The count is relative: a spine whose labels are all
shifted by one level is not recognized.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.signal import find_peaks

from tasks.engines.segmentation.hounsfield.grid import Grid, Labels
from tasks.engines.segmentation.hounsfield.spine import BODY_CENTER_MM, BODY_RADIUS_MM, Spine

VERTEBRA = "vertebrae_"
"""How the names of vertebrae begin."""

BODY_REACH_MM, LEAST_FRONT_MM = 16.0, 9.0
"""Radius of the cross-section around the middle of a vertebral body, and its distance from the
middle of the canal: most of the body, no arch."""

DENSE_PERCENTILE = 90
"""Of a cross-section's density: endplates are high, waists and discs low. Chosen on two scans, one
with bodies as dense as discs and one with denser bodies."""

SMOOTHING = 0.2
"""Sigma of the Gaussian along the spine, in heights of a vertebra: the endplates on both sides of a
disc become one maximum."""

LEAST_DEPTH_HU = 8
"""How much less dense a waist is than the maxima beside it, after smoothing."""


def doubtful_levels(
    grid: Grid, labels: Labels, ids: Mapping[str, int], spine: Spine
) -> dict[str, str]:
    """The vertebrae whose level the count does not confirm, and a sentence on why.

    Args:
        grid: the scan.
        labels: the transferred labels.
        ids: the label of each structure.
        spine: the spinal canal of the scan.
    """
    names = [name for name in ids if name.startswith(VERTEBRA)]
    levels = _label_of_slices(labels, [ids[name] for name in names], spine)
    heights = np.array([n for n in (np.sum(levels == ids[name]) for name in names) if n])
    waists = _waists(grid, spine, float(np.median(heights))) if heights.size else np.empty(0, int)
    doubts = {}
    for name in names:
        count = int(np.sum(levels[waists] == ids[name]))
        if count != 1:
            level = name.removeprefix(VERTEBRA)
            doubts[name] = (
                f"{count} vertebral bodies were counted where {level} should be, so that its level "
                "is not certain"
            )
    return doubts


def _label_of_slices(labels: Labels, vertebrae: list[int], spine: Spine) -> NDArray[np.intp]:
    """The label of a vertebra that has most of the tube in each slice; 0 where none has any."""
    ahead_mm = spine.front_mm - BODY_CENTER_MM
    tube = (spine.right_mm**2 + ahead_mm**2 < BODY_RADIUS_MM**2) & spine.certain
    counts = np.stack([((labels == label) & tube).sum(axis=(0, 1)) for label in vertebrae])
    owners: NDArray[np.intp] = np.where(
        counts.any(axis=0), np.array(vertebrae)[counts.argmax(axis=0)], 0
    )
    return owners


def _waists(grid: Grid, spine: Spine, height: float) -> NDArray[np.intp]:
    """The slices of the waists; height: of a vertebra with its disc, in slices."""
    ahead_mm = spine.front_mm - BODY_CENTER_MM
    near = (spine.right_mm**2 + ahead_mm**2 < BODY_REACH_MM**2) & (spine.front_mm > LEAST_FRONT_MM)
    dense = np.array(
        [
            np.percentile(grid.hu[:, :, level][across], DENSE_PERCENTILE) if across.any() else 0.0
            for level, across in enumerate(np.moveaxis(near, 2, 0))
        ]
    )
    smooth = ndi.gaussian_filter1d(dense, SMOOTHING * height)
    waists, _ = find_peaks(-smooth, prominence=LEAST_DEPTH_HU)
    found: NDArray[np.intp] = waists
    return found
