"""Pleural effusion: blunted costophrenic angles, and where the fluid lies."""

from __future__ import annotations

import numpy as np

from tasks.engines.detection.atlas.lung_fields.outlines import (
    DIAPHRAGM,
    SIDES,
    BoxXYXY,
    LungFields,
    Side,
    frame_of,
    to_unit,
)

BLUNTED = 0.1
"""Height of a costophrenic angle over the other one, in lung heights (2 to 3 cm in an adult), from
which it is blunted. The diaphragm itself is lower on the left by less."""

LATERAL_WIDTH = 0.75
"""Width of the effusion's box from the lateral wall, in shares of the lung's. Free fluid of an
upright patient collects laterally; the medial quarter is the heart and the cardiophrenic angle."""

HEIGHTS_PER_LUNG = 7
"""A lung is at most this many times as tall as the box of an effusion. Less fluid (below about
200 ml) is not visible on a frontal radiograph."""


def blunting(fields: LungFields, side: Side) -> float:
    """Height of a costophrenic angle over the contralateral one, in lung heights."""
    other: Side = "left" if side == "right" else "right"
    own_bottom, other_bottom = fields[side][:, 1].max(), fields[other][:, 1].max()
    return float((other_bottom - own_bottom) / np.ptp(fields[other][:, 1]))


def effusion_box(fields: LungFields, side: Side) -> BoxXYXY:
    """The box of an effusion: from the meniscus down to the lower costophrenic angle.

    Fluid hides its own angle, so the bottom is that of the lower angle of both sides. The top is
    the highest point of the visible lung's lateral base.
    """
    lateral, medial, top, bottom = frame_of(fields[side], side)
    base = fields[side][DIAPHRAGM]
    u = to_unit(base, frame_of(fields[side], side))[:, 0]
    # y grows downwards.
    floor = max(fields[each][:, 1].max() for each in SIDES)
    meniscus = min(base[u < LATERAL_WIDTH][:, 1].min(), floor - (bottom - top) / HEIGHTS_PER_LUNG)
    inner = lateral + LATERAL_WIDTH * (medial - lateral)
    return min(lateral, inner), float(meniscus), max(lateral, inner), float(floor)
