"""Slices are upright, in proportion, and boxes and masks lie in them at the same position."""

import numpy as np
import pytest

from storage.imaging.overlays import mask_outlines
from storage.imaging.slices import Slice, largest_slices, middle_slices, slice_areas, slices_at

SHAPE, SPACING_MM = (10, 20, 40), (1.0, 2.0, 3.0)


def block(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


@pytest.mark.parametrize("shown", [Slice("axial", 39), Slice("coronal", 19)])
def test_right_is_on_the_left_and_anterior_or_superior_is_up(shown) -> None:
    right_anterior_superior = block((9, 19, 39), (10, 20, 40))
    assert shown.of(right_anterior_superior)[0, 0]
    assert shown.of(right_anterior_superior).sum() == 1


def test_a_slice_looks_as_wide_and_high_as_it_is_in_mm() -> None:
    assert Slice("axial", 0).aspect(SHAPE, SPACING_MM) == pytest.approx(10 / 40)
    assert Slice("coronal", 0).aspect(SHAPE, SPACING_MM) == pytest.approx(10 / 120)


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_a_box_lies_where_its_voxels_do(plane) -> None:
    low, high = (2, 5, 6), (5, 13, 30)
    shown = Slice(plane, 8)
    [outline] = mask_outlines(shown.of(block(low, high)))
    rectangle = shown.rectangle(np.array([low, high], float), SHAPE)
    assert rectangle is not None
    np.testing.assert_allclose([*outline.min(0), *outline.max(0)], rectangle, atol=0.01)


def test_a_slice_shows_the_boxes_that_reach_its_middle() -> None:
    box = np.array([[0, 0, 2.0], [9, 9, 4.0]])
    shown = [z for z in range(40) if Slice("axial", z).rectangle(box, SHAPE)]
    assert shown == [2, 3]


def test_the_largest_slices_of_a_mask() -> None:
    mask = block((2, 5, 6), (5, 13, 30))
    mask[:, 7, 21] = True
    assert largest_slices(mask) == [Slice("axial", 21), Slice("coronal", 7)]
    assert slice_areas(mask, "axial")[[5, 6, 21]].tolist() == [0, 3 * 8, 3 * 8 + 7]


def test_slices_through_a_point_are_in_the_volume() -> None:
    assert slices_at((1.2, 3.9, 7.5), SHAPE) == [Slice("axial", 7), Slice("coronal", 3)]
    assert slices_at((0.0, 20.0, 40.0), SHAPE) == [Slice("axial", 39), Slice("coronal", 19)]
    assert middle_slices(SHAPE) == [Slice("axial", 20), Slice("coronal", 10)]
