"""Boxes of the zones of a lung field that a report names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tasks.engines.detection.atlas.measure import BoxXYXY, Share
from tasks.engines.detection.atlas.outlines import (
    LungFields,
    Points,
    Side,
    frame_of,
    from_unit,
    to_unit,
)
from tasks.engines.detection.atlas.placement import Zone

WHOLE: Share = (0.0, 1.0)


def zone_boxes(
    fields: LungFields, side: Side, names: Iterable[str], zones: Mapping[str, Zone]
) -> list[BoxXYXY]:
    """One box per named zone of a side, in the order of the words.

    Zones of height alone ("upper") are narrowed by zones of width alone ("lateral"); zones that
    the table does not know are left aside. No zone gives the whole field.
    """
    known = [zones[name] for name in names if name in zones and zones[name].side in (None, side)]
    across = [zone.width for zone in known if zone.height is None and zone.width is not None]
    width = (max(w[0] for w in across), min(w[1] for w in across)) if across else None
    placed = [zone for zone in known if zone.height is not None] or [Zone()]
    return [
        part_box(fields, side, zone.height or WHOLE, _narrow(zone.width or WHOLE, width))
        for zone in placed
    ]


def _narrow(width: Share, other: Share | None) -> Share:
    if other is None:
        return width
    low, high = max(width[0], other[0]), min(width[1], other[1])
    return (low, high) if low < high else width


def part_box(fields: LungFields, side: Side, height: Share, width: Share) -> BoxXYXY:
    """Box around the part of a lung field between shares of its height and width.

    The box hugs the field (an apex is narrower than a base) on the borders that are the field's
    own; shares below 0 or above 1 reach beyond it.
    """
    frame = frame_of(fields[side], side)
    corners = np.array([[width[0], height[0]], [width[1], height[1]]])
    outline = _dense(to_unit(fields[side], frame))
    inside = outline[(outline[:, 1] >= height[0]) & (outline[:, 1] <= height[1])]
    if len(inside):
        low, high = inside.min(axis=0), inside.max(axis=0)
        for end, border in ((0, low), (1, high)):
            if WHOLE[0] <= width[end] <= WHOLE[1]:
                corners[end, 0] = np.clip(width[end], low[0], high[0])
            if height[end] == WHOLE[end]:
                corners[end, 1] = border[1]
    (x_a, y_a), (x_b, y_b) = from_unit(corners, frame)
    return float(min(x_a, x_b)), float(y_a), float(max(x_a, x_b)), float(y_b)


def _dense(outline: Points) -> Points:
    """Four points between every two, so that a band between two points still meets the outline."""
    following = np.roll(outline, -1, axis=0)
    share = np.linspace(0, 1, 5)[:, None, None]
    dense: Points = ((1 - share) * outline + share * following).reshape(-1, 2)
    return dense
