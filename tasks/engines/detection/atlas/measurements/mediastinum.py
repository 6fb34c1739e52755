"""The upper mediastinum, measured between the lung fields."""

from __future__ import annotations

import numpy as np

from tasks.engines.detection.atlas.lung_fields.outlines import (
    SIDES,
    BoxXYXY,
    LungFields,
    Share,
    medial_border,
)

HEIGHT: Share = (0.05, 0.4)
"""From the thoracic inlet to the hila, in shares of the lung fields' height. The topmost part is
left out: there the apices curve away from the mediastinum."""


def mediastinum_box(fields: LungFields) -> BoxXYXY:
    """The box of the upper mediastinum between the lungs."""
    right, left = (medial_border(fields, side, HEIGHT) for side in SIDES)
    y = np.concatenate([right[:, 1], left[:, 1]])
    return float(right[:, 0].min()), float(y.min()), float(left[:, 0].max()), float(y.max())
