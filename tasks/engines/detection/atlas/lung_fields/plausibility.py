"""Plausibility of two outlines as the lung fields of an image.

The bounds were chosen to accept frontal radiographs, real and projected, also rotated, cropped,
padded, over- and underexposed, and to reject lateral and abdominal projections, CT slices, turned
and inverted radiographs, photographs, textures and noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.engines.detection.atlas.errors import NoLungFieldsError
from tasks.engines.detection.atlas.lung_fields.edges import SIDE_PX, EdgeField
from tasks.engines.detection.atlas.lung_fields.outlines import (
    DIAPHRAGM,
    LATERAL,
    MEDIAL,
    SIDES,
    LungFields,
    Points,
    fill,
    frame_of,
    outward_normals,
)

ON_EDGE_SUPPORT = 0.1
"""Edge support (at most 0.5) from which a landmark counts as lying on an edge."""

LEAST_BORDER_SUPPORT, LEAST_MEAN_SUPPORT = 0.11, 0.23
"""Mean edge support of the weakest border, and of all six (three per lung)."""

LEAST_ON_EDGE, LEAST_ON_EDGE_MEAN = 0.7, 0.84
"""Share of the landmarks that lie on an edge: of the worse lung, and of both."""

LEAST_DARKER = 0.86
"""Chance that a pixel of the lungs is darker than one around them (area under the ROC curve)."""

RING_NEAR, RING_FAR = 0.01, 0.05
"""Distance of the surroundings from the lungs, in shares of `SIDE_PX`: 5 to 26 px. Nearer pixels
share the blurred border, farther ones may be air outside of the patient."""

LEAST_AREA = 0.025
"""Area of the smaller lung field, in shares of the image."""

GAP_WIDTHS = (0.08, 1.0)
"""Width of the mediastinum between the fields, in mean lung widths."""

MOST_HEIGHT_RATIO, MOST_WIDTH_RATIO = 1.6, 2.0
"""Larger over smaller lung. Widths differ more: the heart narrows the left one."""

LEAST_SHARED_HEIGHT = 0.6
"""Height at which both lungs lie side by side, in heights of the shorter one."""


def checked_lung_fields(
    image: NDArray[np.float64], edges: EdgeField, right: Points, left: Points
) -> LungFields:
    """Both outlines as lung fields, in pixels of `image` (working size).

    Raises:
        NoLungFieldsError: if they are not plausible.
    """
    support = [edges.support(outline, outward_normals(outline)) for outline in (right, left)]
    on_edge = [float(np.mean(side > ON_EDGE_SUPPORT)) for side in support]
    borders = [side[part].mean() for side in support for part in (LATERAL, DIAPHRAGM, MEDIAL)]
    masks = [fill(outline, (image.shape[0], image.shape[1])) for outline in (right, left)]
    defects = [
        _proportions(right, left),
        "the fields are too small" if min(m.mean() for m in masks) < LEAST_AREA else None,
        "a border of the lungs is missing" if min(borders) < LEAST_BORDER_SUPPORT else None,
        "the borders are broken" if min(on_edge) < LEAST_ON_EDGE else None,
        "the borders are broken" if np.mean(on_edge) < LEAST_ON_EDGE_MEAN else None,
        "the borders are faint" if np.mean(borders) < LEAST_MEAN_SUPPORT else None,
        "the fields are not dark" if _darker(image, masks) < LEAST_DARKER else None,
    ]
    # The first defect is reason enough.
    for defect in filter(None, defects):
        raise NoLungFieldsError(f"no two lungs side by side: {defect}")
    return LungFields(right, left, float(np.mean(on_edge)))


def _proportions(right: Points, left: Points) -> str | None:
    """What is implausible about the sizes and positions of two outlines; None if nothing is."""
    frames = np.array([frame_of(o, side) for o, side in zip((right, left), SIDES, strict=True)])
    widths, heights = np.abs(frames[:, 1] - frames[:, 0]), frames[:, 3] - frames[:, 2]
    gap = (frames[1, 1] - frames[0, 1]) / widths.mean()
    if not GAP_WIDTHS[0] < gap < GAP_WIDTHS[1]:
        return "they overlap or lie far apart"
    too_tall = max(heights) > MOST_HEIGHT_RATIO * min(heights)
    if too_tall or max(widths) > MOST_WIDTH_RATIO * min(widths):
        return "their sizes differ too much"
    shared = frames[:, 3].min() - frames[:, 2].max()
    return None if shared > LEAST_SHARED_HEIGHT * min(heights) else "they are at different heights"


def _darker(image: NDArray[np.float64], masks: list[NDArray[np.bool_]]) -> float:
    """Chance that a pixel of the fields is darker than one of the ring around them, 0 to 1."""
    fields = masks[0] | masks[1]
    distance = ndimage.distance_transform_edt(~fields)
    ring = image[(distance > RING_NEAR * SIDE_PX) & (distance < RING_FAR * SIDE_PX)]
    inside = np.sort(image[fields])
    return float(np.searchsorted(inside, ring).mean() / inside.size)
