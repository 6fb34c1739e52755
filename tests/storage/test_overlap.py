"""Overlaps against worked values and other implementations, and at their limits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data.box_utils import box_giou as monai_box_giou
from monai.data.box_utils import box_iou as monai_box_iou
from monai.metrics.meandice import compute_dice

from storage.overlap import box_giou, box_iou, dice, mask_iou

EDGE = st.integers(0, 20)


def block(shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (block((8, 8), (2, 2), (6, 6)), block((8, 8), (2, 3), (6, 7)), 0.75),
        (block((10,) * 3, (2,) * 3, (8,) * 3), block((10,) * 3, (3,) * 3, (7,) * 3), 0.457143),
    ],
)
def test_masks_in_2d_and_3d(first, second, expected) -> None:
    assert dice(first, second) == pytest.approx(expected, abs=1e-6)
    assert mask_iou(first, second) == pytest.approx(expected / (2 - expected), abs=1e-6)


def test_dice_agrees_with_monai() -> None:
    first, second = np.random.default_rng(0).random((2, 9, 8, 7)) > 0.6
    expected = compute_dice(torch.tensor(first)[None, None], torch.tensor(second)[None, None])
    assert dice(first, second) == pytest.approx(float(expected))


def test_two_empty_masks_agree_and_one_agrees_with_nothing() -> None:
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    for overlap in (dice, mask_iou):
        assert overlap(empty, empty) == 1
        assert overlap(empty, full) == overlap(full, empty) == 0


def test_a_slice_is_not_compared_with_a_volume() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 4\) and \(3, 4, 4\)"):
        dice(np.ones((1, 4, 4), bool), np.ones((3, 4, 4), bool))


@pytest.mark.parametrize(
    ("first", "second", "iou", "giou"),
    [
        ((0, 0, 10, 10), (5, 5, 15, 15), 0.142857, -0.079365),
        ((0, 0, 10, 10), (20, 0, 30, 10), 0.0, -0.333333),
        ((10, 10, 50, 40), (12, 8, 48, 44), 0.762712, 0.746045),
        ((0, 0, 0, 10, 10, 10), (5, 5, 5, 15, 15, 15), 0.066667, -0.377778),
    ],
)
def test_boxes_in_2d_and_3d(first, second, iou, giou) -> None:
    assert box_iou(first, second) == pytest.approx(iou, abs=1e-6)
    assert box_giou(first, second) == pytest.approx(giou, abs=1e-6)


@pytest.mark.parametrize("axes", [2, 3])
def test_pairs_of_boxes_agree_with_monai(axes) -> None:
    rng = np.random.default_rng(0)
    # Large boxes: MONAI adds 1e-7 to every volume.
    first, second = 100 * rng.random((2, 30, axes)), 100 * rng.random((2, 20, axes))
    one, other = (np.concatenate([c.min(0), c.max(0) + 10], -1) for c in (first, second))
    assert box_iou(one[:, None], other).shape == (30, 20)
    np.testing.assert_allclose(box_iou(one[:, None], other), monai_box_iou(one, other), atol=1e-6)
    np.testing.assert_allclose(box_giou(one[:, None], other), monai_box_giou(one, other), atol=1e-6)


@given(st.tuples(EDGE, EDGE, EDGE), st.tuples(EDGE, EDGE, EDGE))
def test_boxes_of_whole_voxels_overlap_as_their_masks_do(low, size) -> None:
    high = np.minimum(np.add(low, size), 21)
    box, other = (*low, *high), (5, 5, 5, 12, 12, 12)
    masks = block((21,) * 3, low, tuple(high)), block((21,) * 3, other[:3], other[3:])
    assert box_iou(box, other) == pytest.approx(mask_iou(*masks))


def test_empty_boxes_have_finite_values() -> None:
    point, flat, far = (5, 5, 5, 5), (0, 0, 0, 9), (8, 8, 8, 8)
    assert box_iou(point, point) == box_giou(point, point) == 0
    assert box_iou(flat, flat) == box_giou(flat, flat) == 0
    assert box_iou((9, 9, 0, 0), (0, 0, 9, 9)) == 0
    assert box_giou(point, far) == -1


def test_corners_in_two_rows_are_no_box() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        box_iou(np.zeros((2, 3)), np.ones((2, 3)))
