"""The rules of the placement table: from a site of a report to boxes on a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from storage.records import Modifiers, Site
from tasks.engines.detection.atlas import measure
from tasks.engines.detection.atlas.measure import BoxXYXY
from tasks.engines.detection.atlas.nodules import SURE, Spot
from tasks.engines.detection.atlas.outlines import SIDES, Side
from tasks.engines.detection.atlas.placement import Kind, Placement, Rule, RuleName
from tasks.engines.detection.atlas.scene import Scene
from tasks.engines.detection.atlas.zones import part_box, zone_boxes

LARGE_HEART = 0.47
"""Cardiothoracic ratio from which a stated cardiomegaly is borne out: 0.5 less the error here."""

MEDIAL_ZONES = frozenset({"hilar", "perihilar", "suprahilar", "infrahilar", "central", "medial"})

EVERY_SIDE: tuple[Side, ...] = SIDES


class CannotPlaceError(Exception):
    """A site that gets no box: a reason code, see `Ungrounded`, and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Request:
    """A target asked for on a scene: its rule, and what the words say of side, zone and number."""

    scene: Scene
    rule: Rule
    words: Modifiers
    table: Placement

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones in the words that the table knows."""
        return tuple(zone for zone in self.words.zones if zone in self.table.zones)

    @property
    def sides(self) -> tuple[Side, ...] | None:
        """The sides that target, words or zone give; None when none does.

        Raises:
            CannotPlaceError: if they contradict each other.
        """
        bound = {self.rule.side, *(self.table.zones[zone].side for zone in self.zones)}
        if self.words.laterality != "bilateral":
            bound.add(self.words.laterality)
        bound.discard(None)
        if len(bound) > 1:
            raise CannotPlaceError(
                "side_mismatch", "the words name one side, the structure or zone the other"
            )
        if bound:
            return tuple(side for side in SIDES if side in bound)
        return EVERY_SIDE if self.words.laterality == "bilateral" else None

    def zone_boxes(self, side: Side, zones: Sequence[str]) -> list[BoxXYXY]:
        """Boxes of zones of one lung field."""
        return zone_boxes(self.scene.fields, side, zones, self.table.zones)


@dataclass(frozen=True)
class Placed:
    """A box, how it was placed, and how far this one bears that out (0 to 1)."""

    box: BoxXYXY
    kind: Kind
    weight: float = 1.0


def place(scene: Scene, site: Site, table: Placement) -> list[Placed]:
    """The boxes of a site.

    Raises:
        CannotPlaceError: with the reason, if there is none.
    """
    rule = table.rules.get(site.target)
    if rule is None:
        raise CannotPlaceError(
            "target_not_supported", f"the atlas cannot place {site.target} on a frontal radiograph"
        )
    return RULES[rule.rule](Request(scene, rule, site.modifiers, table))


def place_structures(ask: Request) -> list[Placed]:
    """Outlines of the atlas, one box per group; paired structures on the stated sides."""
    sides = ask.sides or EVERY_SIDE
    groups = [group for group in ask.rule.structures if _side(group) in (None, *sides)]
    if not groups:
        raise CannotPlaceError("side_mismatch", f"there is none on the {sides[0]} side")
    return [Placed(_group_box(ask, group), "outlined") for group in groups]


def _side(group: tuple[str, ...]) -> Side | None:
    """The side in the names of a group of structures."""
    return next((side for side in SIDES if side in group[0].split("_")), None)


def _group_box(ask: Request, group: tuple[str, ...]) -> BoxXYXY:
    side = _side(group)
    if ask.rule.borders == "pleural" and side:
        return ask.scene.pleural_box(group, side)
    return (
        ask.scene.aortic_box(group)
        if ask.rule.borders == "aortic"
        else ask.scene.structure_box(group)
    )


def place_lung(ask: Request) -> list[Placed]:
    """A lung, or the zones of it that the words name."""
    if ask.zones:
        return place_zone(ask)
    return place_structures(ask)


def place_zone(ask: Request) -> list[Placed]:
    """Zones of the lung fields, by the words, by measurement, or where they usually are."""
    named = ask.zones
    if ask.rule.needs_zone and not named:
        raise CannotPlaceError("not_found", "the words do not say where in the chest it is")
    sides = ask.sides
    if ask.rule.sides == "measured" and (sides is None or not (named or len(sides) > 1)):
        return _place_denser(ask, named, sides)
    if sides is None and ask.rule.sides == "stated":
        raise CannotPlaceError("not_found", "the words do not say on which side it is")
    zones = named or ask.rule.default
    kind: Kind = "zone" if named else "presumed"
    return [
        Placed(box, kind) for side in sides or EVERY_SIDE for box in ask.zone_boxes(side, zones)
    ]


def _place_denser(
    ask: Request, named: tuple[str, ...], sides: tuple[Side, ...] | None
) -> list[Placed]:
    """The part that is denser than its counterpart; a stated side falls back to all of it."""
    heights = tuple(height for zone in named if (height := ask.table.zones[zone].height))
    found = measure.denser_part(
        ask.scene.pixels, ask.scene.fields, heights or measure.THIRDS, sides or EVERY_SIDE
    )
    if found and named:
        boxes = ask.zone_boxes(found[0], named)
        return [Placed(box, "zone") for box in boxes]
    if found:
        side, height = found
        return [Placed(part_box(ask.scene.fields, side, height, (0.0, 1.0)), "measured")]
    if sides is None:
        raise CannotPlaceError(
            "not_found", "the words do not say on which side it is, and neither lung is denser"
        )
    return [Placed(box, "presumed") for box in ask.zone_boxes(sides[0], ())]


def place_beside(ask: Request) -> list[Placed]:
    """A place next to the lung fields, given as shares of them."""
    sides = ask.sides
    if sides is None and ask.rule.sides == "stated":
        raise CannotPlaceError("not_found", "the words do not say on which side it is")
    return [
        Placed(part_box(ask.scene.fields, side, ask.rule.height, ask.rule.width), "presumed")
        for side in sides or EVERY_SIDE
    ]


def place_heart(ask: Request) -> list[Placed]:
    """The heart, as wide as it is in this image."""
    large = ask.scene.cardiothoracic_ratio >= LARGE_HEART
    return [
        Placed(ask.scene.heart_box, "measured" if large or not ask.rule.enlarged else "presumed")
    ]


def place_retrocardiac(ask: Request) -> list[Placed]:
    """Behind the heart, above the diaphragm: the middle of the heart's lower half."""
    x_min, y_min, x_max, y_max = ask.scene.heart_box
    width, middle = x_max - x_min, (y_min + y_max) / 2
    return [Placed((x_min + 0.2 * width, middle, x_max - 0.2 * width, y_max), "presumed")]


def place_mediastinum(ask: Request) -> list[Placed]:
    """The upper mediastinum between the lungs."""
    return [Placed(measure.mediastinum_box(ask.scene.fields), "measured")]


def place_effusion(ask: Request) -> list[Placed]:
    """Fluid on the stated sides, or where a costophrenic angle is blunted."""
    blunted = [s for s in SIDES if measure.blunting(ask.scene.fields, s) >= measure.BLUNTED]
    sides = ask.sides or tuple(blunted)
    if not sides:
        raise CannotPlaceError(
            "not_found",
            "the words do not say on which side it is, and no costophrenic angle is blunted",
        )
    return [
        Placed(
            measure.effusion_box(ask.scene.fields, side),
            "measured" if side in blunted else "presumed",
        )
        for side in sides
    ]


def place_nodules(ask: Request) -> list[Placed]:
    """Round spots on the stated sides and zones, as many as are sure or as the words count."""
    sides = ask.sides or EVERY_SIDE
    zones = ask.zones
    spots = [spot for spot in ask.scene.spots if spot.side in sides]
    if not MEDIAL_ZONES.intersection(zones):
        spots = [spot for spot in spots if not spot.hilar]
    if zones:
        places = [b for s in sides for b in ask.zone_boxes(s, zones)]
        spots = [spot for spot in spots if _touches(spot, places)]
    sure = sum(spot.salience >= SURE for spot in spots)
    kept = spots[: max(sure, ask.words.count or 0)]
    if not kept:
        raise CannotPlaceError("not_found", "no round spot stands out in this part of the lungs")
    return [Placed(_spot_box(spot), "measured", min(1.0, spot.salience)) for spot in kept]


def _touches(spot: Spot, places: Sequence[BoxXYXY]) -> bool:
    """Whether a spot touches one of the places: readers' zones have no sharp borders."""
    return any(
        x_min - spot.radius <= spot.x <= x_max + spot.radius
        and y_min - spot.radius <= spot.y <= y_max + spot.radius
        for x_min, y_min, x_max, y_max in places
    )


def _spot_box(spot: Spot) -> BoxXYXY:
    return (
        spot.x - spot.radius,
        spot.y - spot.radius,
        spot.x + spot.radius,
        spot.y + spot.radius,
    )


RULES: dict[RuleName, Callable[[Request], list[Placed]]] = {
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
