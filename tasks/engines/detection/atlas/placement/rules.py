"""The rules of the placement table: from a site in a report to boxes on a radiograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from storage.records import Modifiers
from tasks.engines.detection.atlas.errors import CannotPlaceError
from tasks.engines.detection.atlas.lung_fields.outlines import SIDES, BoxXYXY, Side
from tasks.engines.detection.atlas.measurements.density import THIRDS, denser_part
from tasks.engines.detection.atlas.measurements.effusion import BLUNTED, blunting, effusion_box
from tasks.engines.detection.atlas.measurements.mediastinum import mediastinum_box
from tasks.engines.detection.atlas.measurements.nodules import SURE, Spot
from tasks.engines.detection.atlas.placement.table import (
    Evidence,
    Placement,
    PlacementRule,
    RuleName,
)
from tasks.engines.detection.atlas.placement.zones import part_box, zone_boxes
from tasks.engines.detection.atlas.radiograph import RegisteredRadiograph, side_of
from taxonomy.zones import load_zones

LARGE_HEART = 0.47
"""Cardiothoracic ratio from which a stated cardiomegaly is confirmed: 0.5 (Danzer 1919) less the
error of this measurement."""

RETROCARDIAC_MARGIN = 0.2
"""Left out of the heart's width on each side: a hiatal hernia lies near the midline."""

EVERY_SIDE: tuple[Side, ...] = SIDES


@dataclass(frozen=True)
class PlacementRequest:
    """A target on a radiograph: its rule, and what the words state of side, zone and number."""

    image: RegisteredRadiograph
    rule: PlacementRule
    words: Modifiers
    table: Placement

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones in the words that a radiograph can show: all but those of depth.

        Raises:
            CannotPlaceError: for a word that is no zone of the taxonomy.
        """
        if unknown := [zone for zone in self.words.zones if zone not in load_zones()]:
            raise CannotPlaceError("zone_not_supported", f"no zone is called {unknown[0]}")
        return tuple(zone for zone in self.words.zones if zone in self.table.zones)

    @property
    def sides(self) -> tuple[Side, ...] | None:
        """The sides that target, words or zones state; None where none does.

        Raises:
            CannotPlaceError: if they contradict each other.
        """
        # "bilateral" does not contradict a target of one side, which is one of the two.
        stated = {self.rule.side, *(self.table.zones[zone].side for zone in self.zones)}
        if self.words.laterality != "bilateral":
            stated.add(self.words.laterality)
        stated.discard(None)
        if len(stated) > 1:
            raise CannotPlaceError(
                "side_mismatch", "the words name one side, the structure or zone the other"
            )
        if stated:
            return tuple(side for side in SIDES if side in stated)
        return EVERY_SIDE if self.words.laterality == "bilateral" else None

    def zone_boxes(self, side: Side, zones: Sequence[str]) -> list[BoxXYXY]:
        """Boxes of zones of one lung field."""
        return zone_boxes(self.image.fields, side, zones, self.table.zones)


@dataclass(frozen=True)
class PlacedBox:
    """A box not yet clipped to the image, what it rests on, and a weight of its own (0 to 1)."""

    box: BoxXYXY
    evidence: Evidence
    weight: float = 1.0


def place_structures(request: PlacementRequest) -> list[PlacedBox]:
    """Registered structures of the atlas, one box per group; paired ones on the stated sides."""
    sides = request.sides or EVERY_SIDE
    # Unpaired structures have no side in their names and are always placed.
    groups = [g for g in request.rule.structures if side_of(g) in (None, *sides)]
    if not groups:
        raise CannotPlaceError("side_mismatch", f"there is none on the {sides[0]} side")
    box = {
        None: request.image.structure_box,
        "aortic": request.image.aortic_box,
        "pleural": request.image.pleural_box,
    }[request.rule.borders]
    return [PlacedBox(box(group), "outlined") for group in groups]


def place_lung(request: PlacementRequest) -> list[PlacedBox]:
    """A lung, or the zones of it that the words state."""
    if request.zones:
        return place_zone(request)
    return place_structures(request)


def place_zone(request: PlacementRequest) -> list[PlacedBox]:
    """Lung zones: stated by the words, measured, or the usual ones of the finding."""
    named = request.zones
    if request.rule.needs_zone and not named:
        raise CannotPlaceError("not_found", "the words do not say where in the chest it is")
    sides = request.sides
    # Density decides the side where none is stated, and the zone where one side, but no zone, is.
    if request.rule.sides == "measured" and (sides is None or not (named or len(sides) > 1)):
        return _place_denser(request, named, sides)
    if sides is None and request.rule.sides == "stated":
        raise CannotPlaceError("not_found", "the words do not say on which side it is")
    zones = named or request.rule.default
    evidence: Evidence = "zone" if named else "presumed"
    return [
        PlacedBox(box, evidence)
        for side in sides or EVERY_SIDE
        for box in request.zone_boxes(side, zones)
    ]


def _place_denser(
    request: PlacementRequest, named: tuple[str, ...], sides: tuple[Side, ...] | None
) -> list[PlacedBox]:
    """The part that is denser than the contralateral one; else all of a stated side."""
    regions = [request.table.zones[zone].film for zone in named]
    heights = tuple(region.height for region in regions if region and region.height)
    found = denser_part(
        request.image.pixels, request.image.fields, heights or THIRDS, sides or EVERY_SIDE
    )
    if found and named:
        boxes = request.zone_boxes(found[0], named)
        return [PlacedBox(box, "zone") for box in boxes]
    if found:
        side, height = found
        return [PlacedBox(part_box(request.image.fields, side, height, (0.0, 1.0)), "measured")]
    if sides is None:
        raise CannotPlaceError(
            "not_found", "the words do not say on which side it is, and neither lung is denser"
        )
    return [PlacedBox(box, "presumed") for box in request.zone_boxes(sides[0], ())]


def place_beside(request: PlacementRequest) -> list[PlacedBox]:
    """A region beside the lung fields, given in shares of their height and width."""
    sides = request.sides
    if sides is None and request.rule.sides == "stated":
        raise CannotPlaceError("not_found", "the words do not say on which side it is")
    return [
        PlacedBox(
            part_box(request.image.fields, side, request.rule.height, request.rule.width),
            "presumed",
        )
        for side in sides or EVERY_SIDE
    ]


def place_heart(request: PlacementRequest) -> list[PlacedBox]:
    """The heart, its width measured in this image."""
    # A small heart contradicts the report, so its box is no evidence of the finding.
    large = request.image.cardiothoracic_ratio >= LARGE_HEART
    return [
        PlacedBox(
            request.image.heart_box,
            "measured" if large or not request.rule.enlarged else "presumed",
        )
    ]


def place_retrocardiac(request: PlacementRequest) -> list[PlacedBox]:
    """Behind the heart, above the diaphragm: the middle of the lower half of the heart."""
    x_min, y_min, x_max, y_max = request.image.heart_box
    margin, middle = RETROCARDIAC_MARGIN * (x_max - x_min), (y_min + y_max) / 2
    return [PlacedBox((x_min + margin, middle, x_max - margin, y_max), "presumed")]


def place_mediastinum(request: PlacementRequest) -> list[PlacedBox]:
    """The upper mediastinum between the lungs."""
    return [PlacedBox(mediastinum_box(request.image.fields), "measured")]


def place_effusion(request: PlacementRequest) -> list[PlacedBox]:
    """Fluid on the stated sides, or where a costophrenic angle is blunted."""
    blunted = [s for s in SIDES if blunting(request.image.fields, s) >= BLUNTED]
    sides = request.sides or tuple(blunted)
    if not sides:
        raise CannotPlaceError(
            "not_found",
            "the words do not say on which side it is, and no costophrenic angle is blunted",
        )
    return [
        PlacedBox(
            effusion_box(request.image.fields, side),
            "measured" if side in blunted else "presumed",
        )
        for side in sides
    ]


def place_nodules(request: PlacementRequest) -> list[PlacedBox]:
    """Round spots on the stated sides and zones: the salient ones, or as many as are stated.

    Where the words state depth alone, which a radiograph does not show, there is no box.
    """
    sides = request.sides or EVERY_SIDE
    zones = request.zones
    if request.words.zones and not zones:
        raise CannotPlaceError(
            "zone_not_supported",
            f"a frontal film does not show which spot is {' or '.join(request.words.zones)}",
        )
    spots = [spot for spot in request.image.spots if spot.side in sides]
    if not any(request.table.zones[zone].hilum for zone in zones):
        spots = [spot for spot in spots if not spot.hilar]
    if zones:
        boxes = [b for s in sides for b in request.zone_boxes(s, zones)]
        spots = [spot for spot in spots if _touches(spot, boxes)]
    sure = sum(spot.salience >= SURE for spot in spots)
    # Spots come in order of salience, so the least salient are left out.
    kept = spots[: max(sure, request.words.count or 0)]
    if not kept:
        raise CannotPlaceError("not_found", "no round spot stands out in this part of the lungs")
    return [PlacedBox(_spot_box(spot), "measured", min(1.0, spot.salience)) for spot in kept]


def _touches(spot: Spot, boxes: Sequence[BoxXYXY]) -> bool:
    """Whether a spot touches one of the boxes: readers' zones have no sharp borders."""
    return any(
        x_min - spot.radius <= spot.x <= x_max + spot.radius
        and y_min - spot.radius <= spot.y <= y_max + spot.radius
        for x_min, y_min, x_max, y_max in boxes
    )


def _spot_box(spot: Spot) -> BoxXYXY:
    return (
        spot.x - spot.radius,
        spot.y - spot.radius,
        spot.x + spot.radius,
        spot.y + spot.radius,
    )


RULES: dict[RuleName, Callable[[PlacementRequest], list[PlacedBox]]] = {
    "structures": place_structures,
    "lung": place_lung,
    "zone": place_zone,
    "beside": place_beside,
    "heart": place_heart,
    "retrocardiac": place_retrocardiac,
    "mediastinum": place_mediastinum,
    "effusion": place_effusion,
    "nodules": place_nodules,
}
