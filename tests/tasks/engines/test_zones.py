"""Every zone that the words can give, through everything that places by zones.

A zone must select: some of what lies in a lung and not all of it. Where a radiograph cannot show a
zone, the answer says so.
"""

from itertools import product

import numpy as np
import pytest

from storage.records import Modifiers
from tasks.engines.detection.atlas.errors import CannotPlaceError
from tasks.engines.detection.atlas.lung_fields.outlines import (
    SIDES,
    LungFields,
    frame_of,
    from_unit,
)
from tasks.engines.detection.atlas.measurements.nodules import Spot
from tasks.engines.detection.atlas.placement.rules import RULES, PlacedBox, PlacementRequest
from tasks.engines.detection.atlas.placement.table import load_placement
from tasks.engines.detection.atlas.radiograph import RegisteredRadiograph
from tasks.engines.detection.atlas.reference.build import Atlas
from tasks.engines.segmentation.hounsfield.nodules import Nodule, at_site
from tasks.engines.text.lexicon.vocabulary import load_vocabulary
from taxonomy.zones import load_zones

ZONES = load_zones()
NOT_ON_FILM = {"anterior", "posterior"}
RIGHT = np.array([[60, 20], [20, 120], [10, 220], [75, 200], [80, 100]], dtype=float)
FIELDS = LungFields(RIGHT, RIGHT * [-1, 1] + [200, 0], 1.0)


def spots() -> list[Spot]:
    """Spots all over both lung fields."""
    found = []
    for side, u, v in product(SIDES, np.linspace(0.05, 0.95, 10), np.linspace(0.05, 0.95, 10)):
        x, y = from_unit(np.array([[u, v]]), frame_of(FIELDS[side], side))[0]
        found.append(Spot(float(x), float(y), 1.0, 0.9, side, float(u), float(v)))
    return found


def radiograph() -> RegisteredRadiograph:
    atlas = Atlas.__new__(Atlas)  # nothing that is placed here looks at it
    view = RegisteredRadiograph(np.zeros((240, 200), np.float32), FIELDS, atlas)
    view.__dict__["spots"] = spots()
    return view


def placed(target: str, *zones: str, side: str | None = None) -> list[PlacedBox]:
    words = Modifiers(side, zones)  # type: ignore[arg-type]
    table = load_placement()
    rule = table.rules[target]
    return RULES[rule.rule](PlacementRequest(radiograph(), rule, words, table))


def nodules() -> list[Nodule]:
    """Nodules all over both lungs, each slice half an ellipse."""
    tenths = np.linspace(0.05, 0.95, 10)
    everywhere = product(SIDES, tenths, tenths, tenths)
    return [
        Nodule((), side, height, depth, width, radius, 1.0)
        for side, height, depth, width in everywhere
        if (radius := float(np.hypot(1 - width, 2 * depth - 1))) <= 1
    ]


def test_the_lexicon_gives_no_other_zones():
    vocabulary = load_vocabulary()
    given = {*vocabulary.zones, *vocabulary.zone_nouns, *vocabulary.lobes}
    assert given | set(vocabulary.structure_zones.values()) == set(ZONES)


@pytest.mark.parametrize("name", sorted(set(ZONES) - NOT_ON_FILM))
def test_a_zone_is_placed_as_a_part_of_the_lung_field(name):
    (box,) = placed("pulmonary cavity", name, side="left")
    (whole,) = placed("pulmonary cavity", side="left")
    assert box.evidence == "zone"
    assert box.box != whole.box


@pytest.mark.parametrize("name", sorted(NOT_ON_FILM))
def test_depth_is_superimposed_so_that_its_place_is_the_whole_field(name):
    assert placed("pulmonary cavity", name, side="left") == placed("pulmonary cavity", side="left")


@pytest.mark.parametrize("name", sorted(set(ZONES) - NOT_ON_FILM))
def test_a_zone_selects_spots_on_a_radiograph(name):
    found = placed("lung nodule", name)
    assert 0 < len(found) < 0.75 * len(spots())


@pytest.mark.parametrize("name", sorted(NOT_ON_FILM))
def test_a_radiograph_cannot_tell_which_spot_lies_in_front(name):
    with pytest.raises(CannotPlaceError, match=f"does not show which spot is {name}") as caught:
        placed("lung nodule", name)
    assert caught.value.reason == "zone_not_supported"
    assert placed("lung nodule", name, "basal") == placed("lung nodule", "basal")


@pytest.mark.parametrize("name", sorted(ZONES))
def test_a_zone_selects_nodules_on_a_ct(name):
    found = [nodule for nodule in nodules() if at_site(nodule, None, (name,))]
    assert 0 < len(found) < 0.75 * len(nodules())


def test_a_perihilar_nodule_is_not_one_at_the_wall():
    beside_hilum = Nodule((), "left", 0.5, 0.45, 0.8, 0.22, 1.0)
    at_wall = Nodule((), "left", 0.5, 0.45, 0.05, 0.95, 1.0)
    assert at_site(beside_hilum, "left", ("perihilar",))
    assert not at_site(at_wall, "left", ("perihilar",))


def test_zones_of_one_axis_are_alternatives_and_of_several_hold_together():
    low_front = Nodule((), "left", 0.1, 0.9, 0.5, 0.9, 1.0)
    assert at_site(low_front, None, ("apical", "basal"))
    assert at_site(low_front, None, ("anterior", "basal"))
    assert not at_site(low_front, None, ("posterior", "basal"))


def test_the_lingula_is_on_the_left():
    right = Nodule((), "right", 0.4, 0.9, 0.5, 0.9, 1.0)
    assert not at_site(right, None, ("lingular",))


def test_a_word_that_is_no_zone_is_told():
    with pytest.raises(CannotPlaceError, match="no zone is called inner"):
        placed("lung nodule", "inner")
