"""A record that goes through its row, through Arrow, comes back as it was."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import (
    Box,
    GroundedReport,
    Grounding,
    Laterality,
    Mask,
    MaskKey,
    Modifiers,
    Phrase,
    Provenance,
    SiteKey,
    Tag,
    VolumeBox,
    masks_by_key,
)
from storage.shards import table_from_rows

words = st.text(alphabet="ab,:() ", min_size=1, max_size=6)
sides: st.SearchStrategy[Laterality | None] = st.sampled_from([None, "left", "right", "bilateral"])
zones = st.lists(words, max_size=2).map(tuple)
numbers = st.floats(0, 4096, width=32)
boxes = st.builds(Box, *[numbers] * 5) | st.builds(VolumeBox, *[numbers] * 7)
phrases = st.builds(
    Phrase,
    st.integers(0, 9),
    st.integers(9, 20),
    words,
    st.builds(Modifiers, sides, zones, st.none() | st.integers(1, 9)),
    st.sampled_from(["exact", "normalized", "fuzzy"]),
)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    shape = draw(st.sampled_from([(3, 4), (2, 3, 4)]))
    voxels = np.array(draw(st.lists(st.booleans(), min_size=24, max_size=24)))
    affine = np.diag([0.5, 2, 3, 1]) if len(shape) == 3 else None
    return Mask.of(voxels[: np.prod(shape)].reshape(shape), affine, draw(numbers))


groundings = st.builds(
    Grounding,
    st.none() | st.lists(boxes, max_size=2).map(tuple),
    st.none() | masks(),
    st.sampled_from([None, "not_found"]),
)


@st.composite
def reports(draw: st.DrawFn) -> GroundedReport:
    tags = [
        Tag(i, i + 1, "x", draw(st.none() | words), "anatomy", grounding, draw(sides), draw(zones))
        for i, grounding in enumerate(draw(st.lists(groundings, max_size=3)))
    ]
    # A mask of its own for each tag, whatever their sites.
    numbered = [replace(tag, instance=i if tag.grounding.mask else 0) for i, tag in enumerate(tags)]
    made = Provenance("prediction", model="m", query="q")
    return GroundedReport("d", "test", "s1", "i1", "xxx", tuple(numbered), made)


def _through_arrow(table: str, row: dict[str, Any]) -> dict[str, Any]:
    [back] = table_from_rows(table, [row]).to_pylist()
    return back


@given(phrases)
def test_a_phrase(phrase: Phrase) -> None:
    assert Phrase.from_row(_through_arrow("phrases", phrase.to_row())) == phrase


@given(reports())
def test_a_grounded_report_and_its_masks(report: GroundedReport) -> None:
    rows = [
        _through_arrow("masks", tag.mask_key.to_row() | tag.grounding.mask.to_row())
        for tag in report.tags
        if tag.grounding.mask
    ]
    row = _through_arrow("grounded_reports", report.to_row())
    assert GroundedReport.from_row(row, masks_by_key(rows)) == report
    kinds = [tag["grounding"] for tag in row["tags"]]
    assert kinds == [tag.grounding.kind for tag in report.tags]


def test_an_empty_mask_grounds_nothing() -> None:
    empty = Mask.of(np.zeros((2, 2), np.bool_), None)
    assert Grounding((), empty, "not_found").kind == "none"
    assert MaskKey(SiteKey("heart")) == MaskKey(SiteKey("heart", None, ()), 0)


def test_the_volume_of_a_mask_is_that_of_its_voxels() -> None:
    voxels = np.zeros((3, 3, 3), np.bool_)
    voxels[1:] = True
    mask = Mask.of(voxels, np.diag([0.5, 2.0, 3.0, 1.0]))
    assert mask.voxel_count == 18
    assert mask.volume_mm3 == pytest.approx(54)
    assert (mask.voxels == voxels).all()
