"""Figures as people read them."""

import pytest

from flows.cli.tables import duration, model_table, tag_table
from storage.records import Laterality, MaskKey, SiteKey

SIDES: tuple[Laterality | None, ...] = ("left", "right", None)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0004, "0 ms"),
        (0.04, "40 ms"),
        (12.34, "12.3 s"),
        (100, "1.7 min"),
        (6000, "1.7 h"),
        (12_345_678, "3,429.4 h"),
    ],
)
def test_a_duration_has_the_unit_a_person_would_choose(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_no_time_for_each_step_is_no_time_for_all() -> None:
    table = model_table("planned", {"clean": {"busy_us": 0}, "extract": {"busy_us": 0}})
    assert [list(column.cells)[-1] for column in table.columns[1:]] == ["0 ms"] * 3


def test_a_table_of_nothing_has_dashes() -> None:
    table = model_table("nothing", {"clean": {}})
    assert [cell for column in table.columns[1:] for cell in column.cells][-3:] == ["–"] * 3


def test_every_tag_has_the_size_of_its_own_mask() -> None:
    left, right, film = (MaskKey(SiteKey("lung nodule", side, ())) for side in SIDES)
    tags = [
        {
            "phrase": "nodule",
            "target": "lung nodule",
            "grounding": "mask",
            "mask": key.to_row() | {"voxel_count": 1234},
        }
        for key in (left, right, film)
    ]
    table = tag_table(tags, {left: 2000.0, right: 9000.0, film: None})
    assert [str(cell) for cell in table.columns[2].cells] == [
        "mask 2.0 ml",
        "mask 9.0 ml",
        "mask 1,234 pixels",
    ]
