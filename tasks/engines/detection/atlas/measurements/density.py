"""Density of the lung fields, compared between the two sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.engines.detection.atlas.lung_fields.outlines import (
    PIXEL_CENTER,
    SIDES,
    Frame,
    LungFields,
    Share,
    Side,
    fill,
    frame_of,
)

DENSER = 1.0
"""Difference of the medians, in standard deviations of both lungs' pixels, from which a region is
denser than the contralateral one. Chosen on the radiographs of the inputs."""

THIRDS = ((0.0, 0.36), (0.33, 0.67), (0.64, 1.0))
"""Upper, middle and lower zone, in shares of the field's height; readers' zones overlap."""

SIDE_PX = 512
"""The image is thinned to about this longest side: medians need no more pixels."""

TINY = 1e-6
"""Keeps the division by the spread of a blank image finite."""


def denser_part(
    pixels: NDArray[np.float32],
    fields: LungFields,
    heights: tuple[Share, ...] = THIRDS,
    sides: tuple[Side, ...] = SIDES,
) -> tuple[Side, Share] | None:
    """The part of a lung that exceeds the contralateral part most in density.

    Args:
        pixels: the image that the fields were found in; bright is dense.
        fields: its lung fields.
        heights: the parts, in shares of the field's height.
        sides: the lungs that may be the denser one.

    Returns:
        The side and the part; None where no difference reaches `DENSER`.
    """
    step = max(1, max(pixels.shape) // SIDE_PX)
    small = pixels[::step, ::step]
    moved = fields.moved(1 / step, (0.0, 0.0))
    masks = {side: fill(moved[side], (small.shape[0], small.shape[1])) for side in SIDES}
    spread = float(small[masks["right"] | masks["left"]].std()) + TINY
    right, left = (
        _medians(small, masks[side], frame_of(moved[side], side), heights) for side in SIDES
    )
    excess = {"right": (right - left) / spread, "left": (left - right) / spread}
    side, part = max(
        ((side, part) for side in sides for part in range(len(heights))),
        key=lambda candidate: float(excess[candidate[0]][candidate[1]]),
    )
    return (side, heights[part]) if excess[side][part] >= DENSER else None


def _medians(
    small: NDArray[np.float32],
    mask: NDArray[np.bool_],
    frame: Frame,
    heights: tuple[Share, ...],
) -> NDArray[np.float64]:
    """Median pixel value of each part of one lung field (mask: rows, columns)."""
    rows, columns = np.nonzero(mask)
    v = (rows + PIXEL_CENTER - frame[2]) / (frame[3] - frame[2])
    values = small[rows, columns]
    # Medians: ribs and vessels then count little.
    return np.array([np.median(values[(v >= low) & (v <= high)]) for low, high in heights])
