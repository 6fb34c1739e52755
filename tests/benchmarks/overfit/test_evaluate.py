"""Scores on made-up answers whose agreement with the truth is known."""

import numpy as np
import pytest

from benchmarks.overfit.data import Truth
from benchmarks.overfit.evaluate import ABSENT_GIOU, Score, score
from model.data.images import Frame
from model.data.token_grid import TokenGrid
from storage.images.file_grid import FileGrid
from storage.records import Grounding, Mask, Tag, VolumeBox

SHAPE = (4, 8, 8)
WHOLE = (slice(0, 4), slice(0, 8), slice(0, 8))
FRAME = Frame(FileGrid(SHAPE), WHOLE, TokenGrid(SHAPE, SHAPE, (1, 4, 4), (1, 1, 1)))
COARSE = Frame(FileGrid(SHAPE), WHOLE, TokenGrid((4, 4, 4), (4, 4, 4), (1, 4, 4), (1, 1, 1)))
BOX = np.array([[0.0, 2, 2], [4, 6, 6]])
FAR = np.array([[0.0, 0, 0], [1, 1, 1]])


def block(low, high):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:, low:high] = True
    return mask


def region(mask=None, boxes=()):
    found = tuple(VolumeBox.from_corners(corners, 0.9) for corners in boxes)
    encoded = None if mask is None else Mask.of(mask, None)
    return Tag(0, 5, "heart", "heart", "anatomy", Grounding(found, encoded))


def test_what_is_right_scores_one():
    truth = Truth("heart", block(2, 6), BOX[None])
    assert score(truth, region(block(2, 6), [BOX]), FRAME) == Score("heart", 1.0, 1.0, (1.0,), 0)


def test_what_was_not_found_has_the_worst_score():
    truth = Truth("heart", block(2, 6), np.stack([BOX, FAR]))
    absent = Score("heart", 0.0, 0.0, (ABSENT_GIOU, ABSENT_GIOU), 0)
    assert score(truth, None, FRAME) == absent
    assert score(truth, region(), FRAME) == absent


def test_dice_counts_the_voxels_in_common_twice():
    found = score(Truth("heart", block(2, 6), None), region(block(4, 8)), FRAME)
    assert found == Score("heart", 0.5, 0.5, (), 0)


def test_dice_is_taken_where_it_was_learned_and_in_the_file():
    found = score(Truth("heart", block(2, 6), None), region(block(2, 7)), COARSE)
    assert found.dice == pytest.approx(2 * 2 / (2 + 3))
    assert found.dice_in_file == pytest.approx(2 * 4 / (4 + 5))


def test_boxes_are_paired_so_that_they_agree_best_and_the_others_are_false():
    truth = Truth("heart", None, np.stack([BOX, FAR]))
    found = score(truth, region(boxes=[FAR, 2 * BOX, BOX]), FRAME)
    assert found.dice is None
    assert found.giou == pytest.approx((1, 1))
    assert found.false_boxes == 1


def test_only_what_is_to_be_learned_is_scored():
    assert score(Truth("heart", None, None), region(block(0, 2), [BOX]), FRAME) == Score(
        "heart", None, None, (), 0
    )
