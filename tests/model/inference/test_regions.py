"""Phrases point where the localizer says, by what the taxonomy calls them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.images import Frame, prepare, read_image
from model.inference.regions import Pointer
from model.network.localization.localizer import Localization
from taxonomy.targets import load_taxonomy
from tests.model.examples import tiny
from tests.model.inference.memorized import block

TEXT = "heart, lung nodule, thingummy"
SPANS = [(0, 5), (6, 18), (19, 29)]


@pytest.fixture
def frame(pictures: dict[str, Path]) -> Frame:
    return prepare(read_image(pictures["ct.nii.gz"]), tiny())[1]


def localization(frame: Frame, scores: list[float]) -> Localization:
    """Says of every phrase that it is the block, with boxes of the scores given."""
    mask = torch.where(frame.mask_to_model(block()), 5.0, -5.0)
    ends = np.argwhere(block()).min(0), np.argwhere(block()).max(0) + 1
    box = frame.boxes_to_model(np.stack(ends).astype(float)[None])
    logits = torch.tensor(scores).logit()
    return Localization(
        mask.expand(3, -1, -1, -1), box.expand(3, len(scores), 6), logits.expand(3, -1)
    )


def test_anatomy_has_a_mask_abnormalities_boxes_and_the_unknown_both(frame: Frame) -> None:
    heart, nodule, unknown = Pointer(load_taxonomy()).point(
        TEXT, SPANS, localization(frame, [0.9]), frame
    )
    assert (heart.target, heart.category) == ("heart", "anatomy")
    assert heart.grounding.mask is not None
    assert heart.grounding.boxes is None
    assert (nodule.target, nodule.category) == ("lung nodule", "abnormality")
    assert nodule.grounding.mask is None
    assert nodule.grounding.boxes is not None
    assert (unknown.target, unknown.category) == (None, None)
    assert unknown.grounding.mask is not None
    assert unknown.grounding.boxes is not None


@pytest.mark.parametrize(
    ("pointing", "masks", "boxes"),
    [("masks", True, False), ("boxes", False, True), ("both", True, True)],
)
def test_what_grounds_can_be_overruled(
    frame: Frame, pointing: str, masks: bool, boxes: bool
) -> None:
    pointer = Pointer(load_taxonomy(), pointing)  # type: ignore[arg-type]
    assert (pointer.uses_masks, pointer.uses_boxes) == (masks, boxes)
    for tag in pointer.point(TEXT, SPANS, localization(frame, [0.9]), frame):
        assert (tag.grounding.mask is not None, tag.grounding.boxes is not None) == (masks, boxes)


def test_places_are_those_of_the_file(frame: Frame) -> None:
    *_, tag = Pointer(load_taxonomy()).point(TEXT, SPANS, localization(frame, [0.9]), frame)
    assert tag.grounding.mask is not None
    mask = tag.grounding.mask.voxels
    assert mask.shape == block().shape
    assert 2 * (mask & block()).sum() / (mask.sum() + block().sum()) > 0.95
    assert tag.grounding.mask.voxel_count == mask.sum()
    assert tag.grounding.boxes is not None
    np.testing.assert_allclose(
        tag.grounding.boxes[0].corners, [[8, 20, 10], [24, 34, 18]], atol=1e-3
    )


def test_boxes_count_above_the_threshold_most_probable_first(frame: Frame) -> None:
    found = localization(frame, [0.2, 0.9, 0.5, 0.7])
    for threshold, expected in ((0.5, [0.9, 0.7]), (0.1, [0.9, 0.7, 0.5, 0.2]), (0.95, [])):
        _, nodule, _ = Pointer(load_taxonomy(), threshold=threshold).point(
            TEXT, SPANS, found, frame
        )
        assert nodule.grounding.boxes is not None
        assert [one.score for one in nodule.grounding.boxes] == pytest.approx(expected, abs=1e-6)


def test_space_in_brackets_is_no_part_of_a_phrase(frame: Frame) -> None:
    text = "heart,  lung nodule "
    tags = Pointer(load_taxonomy()).point(
        text, [(0, 5), (6, 8), (7, 20)], localization(frame, [0.9]), frame
    )
    assert [tag.phrase for tag in tags] == ["heart", "lung nodule"]
    assert all(text[r.start : r.end] == r.phrase for r in tags)


def test_the_target_with_most_of_the_phrase_counts() -> None:
    pointer = Pointer(load_taxonomy())
    assert pointer.target_of("multiple lung nodules") == "lung nodule"
    assert pointer.target_of("Left lower lobe") == "left lung lower lobe"
    assert pointer.target_of("shadow") is None
