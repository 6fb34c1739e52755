"""The heart's width in a radiograph, and the cardiothoracic ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.graph import MCP

from tasks.engines.detection.atlas.edges import SIDE_PX, edge_field, normalise, shrink
from tasks.engines.detection.atlas.measure import medial_border
from tasks.engines.detection.atlas.outlines import MEDIAL, LungFields, frame_of

LEFT_BORDER_HEIGHT = (0.45, 0.85)
"""Where the left ventricle borders on the lung, in shares of the left field's height."""

STEPS = [(1, -2), (1, -1), (1, 0), (1, 1), (1, 2)]
"""One row down and up to two columns aside."""


def heart_borders(pixels: NDArray[np.float32], fields: LungFields) -> tuple[float, float]:
    """Right and left x of the heart.

    The right border is how far the mediastinum reaches into the lower right lung. The left one is
    traced anew: the apex of a heart is sharper than the lung shapes that the fields are bent from.
    """
    right = medial_border(fields, "right", (0.65, 0.92))[:, 0].min()
    return float(right), _left_border(pixels, fields)


def cardiothoracic_ratio(borders: tuple[float, float], fields: LungFields) -> float:
    """Heart width over the widest inner width of the thorax (Danzer 1919); above 0.5 is large."""
    return (borders[1] - borders[0]) / float(fields.left[:, 0].max() - fields.right[:, 0].min())


def _left_border(pixels: NDArray[np.float32], fields: LungFields) -> float:
    """Largest x of the strongest path, row by row, along which the lung brightens medially."""
    scale = SIDE_PX / max(pixels.shape)
    left = fields.moved(scale, (0.0, 0.0)).left
    lateral, medial, top, bottom = frame_of(left, "left")
    first, last = (int(top + share * (bottom - top)) for share in LEFT_BORDER_HEIGHT)
    inner, outer = int(left[MEDIAL][:, 0].min()), int(lateral - 0.2 * (lateral - medial))
    edges = edge_field(normalise(shrink(pixels)), (0.006, 0.012, 0.025))
    window = np.maximum(-edges.x[max(0, first) : last, max(0, inner) : outer], 0)
    if min(window.shape, default=0) < 2:
        return float(medial_border(fields, "left", (0.5, 1.0))[:, 0].max())
    paths = MCP(1 / (window + 0.03), offsets=STEPS)
    costs, _ = paths.find_costs([(0, column) for column in range(window.shape[1])])
    path = np.array(paths.traceback((window.shape[0] - 1, int(np.argmin(costs[-1])))))
    column = int(path[:, 1].max()) + max(0, inner)
    return float((column + 0.5) / scale)
