"""The heart's width in a radiograph, and the cardiothoracic ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.graph import MCP

from tasks.engines.detection.atlas.lung_fields.edges import (
    FINE_SCALES,
    SIDE_PX,
    edge_field,
    normalize,
    shrink,
)
from tasks.engines.detection.atlas.lung_fields.outlines import (
    MEDIAL,
    PIXEL_CENTER,
    LungFields,
    Share,
    frame_of,
    medial_border,
)

RIGHT_BORDER_HEIGHT: Share = (0.65, 0.92)
LEFT_BORDER_HEIGHT: Share = (0.45, 0.85)
"""Where the right atrium and the left ventricle border on the lung, in shares of the field's
height; below, the cardiophrenic angles."""

UNTRACED_HEIGHT: Share = (0.5, 1.0)
"""The part of the left lung's outline that stands for the heart's border where none is traced."""

LATERAL_MARGIN = 0.2
"""The heart's border lies at least this share of the lung's width from the lateral wall."""

ROW_STEPS = [(1, -2), (1, -1), (1, 0), (1, 1), (1, 2)]
"""One row down and up to two columns aside: the border of a heart is steeper than 27 degrees."""

EDGE_FLOOR = 0.03
"""Added to the edge strength (at most 0.5), so that a row without an edge has a finite cost."""

LEAST_WINDOW_PX = 2
"""Least rows and columns that a path can be traced through."""


def heart_borders(pixels: NDArray[np.float32], fields: LungFields) -> tuple[float, float]:
    """Right and left x of the heart, in pixels of the image.

    The right border is the lower right lung's mediastinal border. The left one is traced again:
    the cardiac apex is sharper than the lung shapes that the fields are fitted with.
    """
    right = medial_border(fields, "right", RIGHT_BORDER_HEIGHT)[:, 0].min()
    return float(right), _left_border(pixels, fields)


def cardiothoracic_ratio(borders: tuple[float, float], fields: LungFields) -> float:
    """Heart width over the inner width of the thorax (Danzer 1919); above 0.5 is enlarged."""
    return (borders[1] - borders[0]) / float(fields.left[:, 0].max() - fields.right[:, 0].min())


def _left_border(pixels: NDArray[np.float32], fields: LungFields) -> float:
    """Largest x of the minimal-cost path down the edge at which the lung brightens medially."""
    # The working image of the edges; the result is scaled back.
    scale = SIDE_PX / max(pixels.shape)
    left = fields.moved(scale, (0.0, 0.0)).left
    lateral, medial, top, bottom = frame_of(left, "left")
    first, last = (int(top + share * (bottom - top)) for share in LEFT_BORDER_HEIGHT)
    inner, outer = int(left[MEDIAL][:, 0].min()), int(lateral - LATERAL_MARGIN * (lateral - medial))
    edges = edge_field(normalize(shrink(pixels)), FINE_SCALES)
    # The lung brightens towards smaller x, so the gradient there is negative.
    window = np.maximum(-edges.x[max(0, first) : last, max(0, inner) : outer], 0)
    if min(window.shape, default=0) < LEAST_WINDOW_PX:
        return float(medial_border(fields, "left", UNTRACED_HEIGHT)[:, 0].max())
    paths = MCP(1 / (window + EDGE_FLOOR), offsets=ROW_STEPS)
    costs, _ = paths.find_costs([(0, column) for column in range(window.shape[1])])
    path = np.array(paths.traceback((window.shape[0] - 1, int(np.argmin(costs[-1])))))
    column = int(path[:, 1].max()) + max(0, inner)
    return float((column + PIXEL_CENTER) / scale)
