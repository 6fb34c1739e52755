"""Measurements on the lung fields of one radiograph: mediastinum, effusions, density.

All boxes are x_min, y_min, x_max, y_max in pixels of the image, not yet clipped to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.engines.detection.atlas.outlines import (
    DIAPHRAGM,
    MEDIAL,
    SIDES,
    LungFields,
    Points,
    Side,
    fill,
    frame_of,
    to_unit,
)

BoxXYXY = tuple[float, float, float, float]
Share = tuple[float, float]

BLUNTED = 0.1
"""A costophrenic angle this much higher than the other one, in lung heights, is blunted."""

DENSER = 1.0
"""Brightness over the counterpart, in spreads of the lungs, from which a region is denser."""

THIRDS = ((0.0, 0.36), (0.33, 0.67), (0.64, 1.0))


def medial_border(fields: LungFields, side: Side, height: Share) -> Points:
    """Points of a lung's border with the mediastinum between two shares of its height."""
    points = fields[side][MEDIAL]
    v = to_unit(points, frame_of(fields[side], side))[:, 1]
    chosen = points[(v >= height[0]) & (v <= height[1])]
    return chosen if len(chosen) else points


def mediastinum_box(fields: LungFields) -> BoxXYXY:
    """The upper mediastinum between the lungs, from the thoracic inlet to the hila."""
    height = (0.05, 0.4)
    right, left = (medial_border(fields, side, height) for side in SIDES)
    y = np.concatenate([right[:, 1], left[:, 1]])
    return float(right[:, 0].min()), float(y.min()), float(left[:, 0].max()), float(y.max())


def blunting(fields: LungFields, side: Side) -> float:
    """How much higher a costophrenic angle is than the other side's, in lung heights."""
    other: Side = "left" if side == "right" else "right"
    own_bottom, other_bottom = fields[side][:, 1].max(), fields[other][:, 1].max()
    return float((other_bottom - own_bottom) / np.ptp(fields[other][:, 1]))


def effusion_box(fields: LungFields, side: Side) -> BoxXYXY:
    """Where fluid lies: from the highest point of the lateral base down to the lower angle.

    Fluid hides the angle, so the bottom is that of the deeper of both sides; the top is where the
    visible lung ends laterally (the meniscus), at least a seventh of the lung above the bottom.
    """
    lateral, medial, top, bottom = frame_of(fields[side], side)
    base = fields[side][DIAPHRAGM]
    u = to_unit(base, frame_of(fields[side], side))[:, 0]
    floor = max(fields[each][:, 1].max() for each in SIDES)
    meniscus = min(base[u < 0.75][:, 1].min(), floor - (bottom - top) / 7)
    inner = lateral + 0.75 * (medial - lateral)
    return min(lateral, inner), float(meniscus), max(lateral, inner), float(floor)


def denser_part(
    pixels: NDArray[np.float32],
    fields: LungFields,
    heights: tuple[Share, ...] = THIRDS,
    sides: tuple[Side, ...] = SIDES,
) -> tuple[Side, Share] | None:
    """The part of a lung that outshines its counterpart on the other side most.

    Args:
        pixels: the image that the fields were found in.
        fields: its lung fields.
        heights: the parts, as shares of the field's height.
        sides: where to look.

    Returns:
        The side and the share of height; None when nothing stands out by `DENSER`.
    """
    step = max(1, max(pixels.shape) // 512)
    small = pixels[::step, ::step]
    moved = fields.moved(1 / step, (0.0, 0.0))
    masks = {side: fill(moved[side], (small.shape[0], small.shape[1])) for side in SIDES}
    spread = float(small[masks["right"] | masks["left"]].std()) + 1e-6
    right, left = (
        _levels(small, masks[side], frame_of(moved[side], side), heights) for side in SIDES
    )
    excess = {"right": (right - left) / spread, "left": (left - right) / spread}
    side, part = max(
        ((side, part) for side in sides for part in range(len(heights))),
        key=lambda place: float(excess[place[0]][place[1]]),
    )
    return (side, heights[part]) if excess[side][part] >= DENSER else None


def _levels(
    small: NDArray[np.float32],
    mask: NDArray[np.bool_],
    frame: NDArray[np.float64],
    heights: tuple[Share, ...],
) -> NDArray[np.float64]:
    """Median brightness of parts of one lung field."""
    rows, columns = np.nonzero(mask)
    v = (rows + 0.5 - frame[2]) / (frame[3] - frame[2])
    values = small[rows, columns]
    return np.array([np.median(values[(v >= low) & (v <= high)]) for low, high in heights])
