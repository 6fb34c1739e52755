"""Whether two outlines on an image are plausible lung fields.

The bounds were set on this collection's kinds of pictures: real and projected frontal films, also
rotated, cropped, framed, over- and underexposed; against them lateral and abdominal projections,
CT slices, turned and inverted films, photographs, textures and noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.engines.detection.atlas.edges import SIDE_PX, EdgeField
from tasks.engines.detection.atlas.outlines import (
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


class NoLungFieldsError(Exception):
    """No pair of lung fields was found; the message says what was seen instead."""


ON_AN_EDGE = 0.1
"""Edge support from which a point of the outline counts as lying on an edge (at most 0.5)."""

LEAST_SEGMENT_SUPPORT = 0.11
LEAST_ON_EDGE, LEAST_ON_EDGE_MEAN = 0.7, 0.84
LEAST_MEAN_SUPPORT = 0.23
LEAST_DARKER = 0.86
LEAST_AREA_SHARE = 0.025


def judge(image: NDArray[np.float64], edges: EdgeField, right: Points, left: Points) -> LungFields:
    """Both outlines as lung fields of `image` (working size).

    Raises:
        NoLungFieldsError: if they are not plausible.
    """
    support = [edges.support(outline, outward_normals(outline)) for outline in (right, left)]
    on_edge = [float(np.mean(side > ON_AN_EDGE)) for side in support]
    segments = [side[part].mean() for side in support for part in (LATERAL, DIAPHRAGM, MEDIAL)]
    masks = [fill(outline, _shape(image)) for outline in (right, left)]
    complaints = [
        _proportions(right, left),
        "the fields are too small" if min(m.mean() for m in masks) < LEAST_AREA_SHARE else None,
        "a border of the lungs is missing" if min(segments) < LEAST_SEGMENT_SUPPORT else None,
        "the borders are broken" if min(on_edge) < LEAST_ON_EDGE else None,
        "the borders are broken" if np.mean(on_edge) < LEAST_ON_EDGE_MEAN else None,
        "the borders are faint" if np.mean(segments) < LEAST_MEAN_SUPPORT else None,
        "the fields are not dark" if _darker(image, masks) < LEAST_DARKER else None,
    ]
    for complaint in filter(None, complaints):
        raise NoLungFieldsError(f"no two lungs side by side: {complaint}")
    return LungFields(right, left, float(np.mean(on_edge)))


def _shape(image: NDArray[np.float64]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _proportions(right: Points, left: Points) -> str | None:
    """What is wrong with the sizes and places of two outlines."""
    frames = np.array([frame_of(o, side) for o, side in zip((right, left), SIDES, strict=True)])
    widths, heights = np.abs(frames[:, 1] - frames[:, 0]), frames[:, 3] - frames[:, 2]
    gap = (frames[1, 1] - frames[0, 1]) / widths.mean()
    if not 0.08 < gap < 1.0:
        return "they overlap or lie far apart"
    if max(heights) > 1.6 * min(heights) or max(widths) > 2 * min(widths):
        return "their sizes differ too much"
    shared = frames[:, 3].min() - frames[:, 2].max()
    return None if shared > 0.6 * min(heights) else "they are at different heights"


def _darker(image: NDArray[np.float64], masks: list[NDArray[np.bool_]]) -> float:
    """Chance that a pixel of the fields is darker than one of the ring around them."""
    fields = masks[0] | masks[1]
    distance = ndimage.distance_transform_edt(~fields)
    ring = image[(distance > 0.01 * SIDE_PX) & (distance < 0.05 * SIDE_PX)]
    inside = np.sort(image[fields])
    return float(np.searchsorted(inside, ring).mean() / inside.size)
