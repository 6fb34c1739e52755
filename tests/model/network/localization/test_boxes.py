import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.image_transforms import center_to_corners_format
from transformers.loss.loss_for_object_detection import generalized_box_iou

from model.network.localization.boxes import generalized_iou, to_corners
from storage.overlap import box_giou

SIZE = st.floats(1 / 256, 1.0, width=32)
PLACE = st.floats(-0.5, 1.5, width=32)
BOX = st.tuples(PLACE, PLACE, PLACE, SIZE, SIZE, SIZE)


def in_3d(boxes_xywh: Tensor) -> Tensor:
    """Embed 2D boxes (x, y, w, h) in a one-slice image."""
    x, y, width, height = boxes_xywh.unbind(-1)
    return torch.stack([torch.full_like(x, 0.5), y, x, torch.ones_like(x), height, width], -1)


def test_corners_of_a_box() -> None:
    box = torch.tensor([0.5, 0.25, 0.75, 1.0, 0.5, 0.25])

    assert to_corners(box).tolist() == [0, 0, 0.625, 1, 0.5, 0.875]


def test_agrees_with_transformers_on_the_boxes_of_a_radiograph() -> None:
    torch.manual_seed(0)
    first, second = torch.rand(40, 4).clamp(min=0.02), torch.rand(30, 4).clamp(min=0.02)
    expected = generalized_box_iou(
        center_to_corners_format(first), center_to_corners_format(second)
    )

    found = generalized_iou(in_3d(first).unsqueeze(1), in_3d(second))

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@given(BOX, BOX)
def test_agrees_with_the_metric_of_the_same_name(
    first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    one, other = torch.tensor(first).double(), torch.tensor(second).double()

    metric = box_giou(to_corners(one).numpy(), to_corners(other).numpy())

    assert float(generalized_iou(one, other)) == pytest.approx(float(metric), abs=1e-9)


def test_boxes_without_a_common_voxel_are_worse_the_farther_they_lie() -> None:
    box = torch.tensor([0.5, 0.5, 0.1, 0.1, 0.1, 0.1])
    moved = torch.stack([box + torch.tensor([0, 0, by, 0, 0, 0]) for by in (0.2, 0.4, 0.8)])

    near, middle, far = generalized_iou(box, moved).tolist()

    # The hull of two unit cubes with a gap of one: two thirds of it are box.
    assert near == pytest.approx(-1 / 3, abs=1e-5)
    assert near > middle > far


@given(BOX, BOX)
def test_lies_between_minus_one_and_one_and_is_symmetric(
    first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    one, other = torch.tensor(first), torch.tensor(second)

    giou = generalized_iou(one, other)

    assert -1 - 1e-5 <= giou <= 1 + 1e-5
    assert giou == generalized_iou(other, one)


@given(BOX)
def test_a_box_equals_itself_exactly_however_small(box: tuple[float, ...]) -> None:
    assert generalized_iou(torch.tensor(box), torch.tensor(box)) == 1


@given(BOX, st.tuples(SIZE, SIZE, SIZE))
def test_a_box_in_its_hull_scores_the_share_it_fills(
    box: tuple[float, ...], shares: tuple[float, ...]
) -> None:
    hull = torch.tensor(box)
    inner = hull.clone()
    inner[3:] *= torch.tensor(shares)

    giou = generalized_iou(inner, hull)

    assert giou == pytest.approx(float(torch.tensor(shares).prod()), abs=2e-3)


def test_boxes_without_a_volume_have_finite_values_and_gradients() -> None:
    flat = torch.tensor(
        [[0.5, 0.5, 0.5, 0, 0, 0], [0.5, 0.5, 0.5, 0, 0.2, 0.2], [0.1, 0.1, 0.1, 0, 0, 0]],
        requires_grad=True,
    )

    giou = generalized_iou(flat.unsqueeze(1), flat)
    giou.sum().backward()

    assert giou.isfinite().all()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
