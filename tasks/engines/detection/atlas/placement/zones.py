"""Boxes of the lung zones that a report names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tasks.engines.detection.atlas.lung_fields.outlines import (
    BoxXYXY,
    LungFields,
    Points,
    Share,
    Side,
    frame_of,
    from_unit,
    to_unit,
)
from taxonomy.zones import FilmRegion, Zone

WHOLE: Share = (0.0, 1.0)
"""All of a lung field's height or width."""

POINTS_PER_SEGMENT = 4
"""Points between two landmarks, so that a narrow band between them still meets the outline."""


def zone_boxes(
    fields: LungFields, side: Side, names: Iterable[str], zones: Mapping[str, Zone]
) -> list[BoxXYXY]:
    """One box per named zone of a side, in the order of the words.

    Zones of height alone ("upper") are narrowed by zones of width alone ("lateral"). No zone of
    this side, or none that a film can show, gives the whole field.
    """
    of_side = [zones[name] for name in names if name in zones]
    known = [zone.film for zone in of_side if zone.film and zone.side in (None, side)]
    across = [region.width for region in known if region.height is None and region.width]
    width = (max(w[0] for w in across), min(w[1] for w in across)) if across else None
    # A width alone ("lateral") narrows the heights, or the whole field where there are none.
    placed = [region for region in known if region.height is not None] or [FilmRegion()]
    return [
        part_box(fields, side, region.height or WHOLE, _narrow(region.width or WHOLE, width))
        for region in placed
    ]


def _narrow(width: Share, other: Share | None) -> Share:
    """The intersection of two intervals; the first where they do not overlap."""
    if other is None:
        return width
    low, high = max(width[0], other[0]), min(width[1], other[1])
    return (low, high) if low < high else width


def part_box(fields: LungFields, side: Side, height: Share, width: Share) -> BoxXYXY:
    """The box of the part of a lung field between shares of its height and width.

    Inside the field, the box is the tight box of the outline's part at this height (an apex is
    narrower than a base); shares below 0 or above 1 extend beyond the field.
    """
    frame = frame_of(fields[side], side)
    corners = np.array([[width[0], height[0]], [width[1], height[1]]])
    outline = _dense(to_unit(fields[side], frame))
    inside = outline[(outline[:, 1] >= height[0]) & (outline[:, 1] <= height[1])]
    if len(inside):
        low, high = inside.min(axis=0), inside.max(axis=0)
        for end, border in ((0, low), (1, high)):
            # Beyond the field there is no outline to clip to.
            if WHOLE[0] <= width[end] <= WHOLE[1]:
                corners[end, 0] = np.clip(width[end], low[0], high[0])
            if height[end] == WHOLE[end]:
                corners[end, 1] = border[1]
    # On the right side u grows with x, on the left it falls.
    (x_a, y_a), (x_b, y_b) = from_unit(corners, frame)
    return float(min(x_a, x_b)), float(y_a), float(max(x_a, x_b)), float(y_b)


def _dense(outline: Points) -> Points:
    """The outline (n, 2) with more points on each segment."""
    following = np.roll(outline, -1, axis=0)
    share = np.linspace(0, 1, POINTS_PER_SEGMENT + 1)[:, None, None]
    dense: Points = ((1 - share) * outline + share * following).reshape(-1, 2)
    return dense
