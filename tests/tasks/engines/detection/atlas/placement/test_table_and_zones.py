"""The placement table: it names what exists, and nothing contradicts itself."""

import numpy as np
import pytest

from tasks.engines.detection.atlas.lung_fields.outlines import LungFields
from tasks.engines.detection.atlas.placement.table import load_placement
from tasks.engines.detection.atlas.placement.zones import part_box, zone_boxes
from taxonomy.targets import load_taxonomy

TABLE = load_placement()
RIGHT = np.array([[60, 20], [20, 120], [10, 220], [75, 200], [80, 100]], dtype=float)
FIELDS = LungFields(RIGHT, RIGHT * [-1, 1] + [200, 0], 1.0)


def test_every_target_is_one_of_the_taxonomy():
    assert not set(TABLE.rules) - set(load_taxonomy().targets)


def test_the_findings_of_a_chest_radiograph_are_there():
    expected = {
        "cardiomegaly", "pleural effusion", "pneumothorax", "atelectasis", "lung nodule",
        "pulmonary consolidation", "pulmonary edema", "pulmonary infiltrate",
        "pulmonary opacification", "pulmonary emphysema", "hiatal hernia", "widened mediastinum",
        "aortic enlargement", "clavicle fracture", "rib fracture", "vascular calcification",
    }  # fmt: skip
    assert expected <= set(TABLE.rules)


def test_rules_use_known_zones_and_have_what_they_need():
    for name, rule in TABLE.rules.items():
        assert set(rule.default) <= set(TABLE.zones), name
        assert bool(rule.structures) == (rule.rule in {"structures", "lung"}), name


def test_certainties_are_ordered_by_how_much_is_seen():
    values = [TABLE.certainty[kind] for kind in ("measured", "outlined", "zone", "presumed")]
    assert values == sorted(values, reverse=True)
    assert all(0 < value < 1 for value in values)


def test_side_and_number_are_written_out():
    assert TABLE.rules["left rib 7"].structures == (("rib_left_7",),)
    assert TABLE.rules["lung"].structures == (("lung_right",), ("lung_left",))
    assert TABLE.rules["right lung middle lobe"].side == "right"
    assert len(TABLE.rules["rib"].structures[0]) == 12


@pytest.mark.parametrize(("side", "wall"), [("right", 10), ("left", 190)])
def test_a_basal_box_hugs_the_lung_and_ends_at_its_base(side, wall):
    (box,) = zone_boxes(FIELDS, side, ["basal"], TABLE.zones)
    assert wall in (box[0], box[2])
    assert box[3] == 220
    assert box[1] == pytest.approx(20 + 0.74 * 200)


def test_zones_of_height_and_width_cut_each_other():
    (upper,) = zone_boxes(FIELDS, "right", ["upper"], TABLE.zones)
    (both,) = zone_boxes(FIELDS, "right", ["upper", "lateral"], TABLE.zones)
    assert both[2] < upper[2]
    assert (both[1], both[3]) == (upper[1], upper[3])


def test_two_heights_are_two_boxes_and_depth_adds_none():
    assert len(zone_boxes(FIELDS, "left", ["upper", "lower", "anterior"], TABLE.zones)) == 2


def test_shares_beyond_the_field_reach_beyond_it():
    box = part_box(FIELDS, "right", (0.0, 0.5), (-0.5, 0.5))
    assert box[0] < FIELDS.right[:, 0].min()
