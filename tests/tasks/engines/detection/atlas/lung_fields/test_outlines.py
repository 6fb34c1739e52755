"""Lung outlines: landmarks, frames and normals on drawn lungs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import draw

from tasks.engines.detection.atlas.lung_fields.outlines import (
    APEX,
    CARDIOPHRENIC,
    COSTOPHRENIC,
    fill,
    frame_of,
    from_unit,
    outward_normals,
    to_unit,
    trace,
)

RIGHT_LUNG = np.array([[20, 60], [60, 35], [120, 20], [220, 10], [200, 75], [120, 80], [50, 80]])


def drawn(side):
    """A lung of seven corners (row, column); the left one is the mirror image."""
    mask = draw.polygon2mask((240, 100), RIGHT_LUNG)
    return mask if side == "right" else mask[:, ::-1]


@pytest.mark.parametrize("side", ["right", "left"])
def test_landmarks_are_apex_lateral_angle_medial_angle(side):
    outline = trace(drawn(side), side)
    unit = to_unit(outline, frame_of(outline, side))
    assert outline.shape == (96, 2)
    assert unit[APEX, 1] == pytest.approx(0, abs=0.02)
    assert unit[COSTOPHRENIC] == pytest.approx([0, 1], abs=0.06)
    assert unit[CARDIOPHRENIC] == pytest.approx([0.95, 0.9], abs=0.1)


def test_equal_indices_are_equal_places_on_both_sides():
    right, left = trace(drawn("right"), "right"), trace(drawn("left"), "left")
    mirrored = left * [-1, 1] + [100, 0]
    assert np.abs(right - mirrored).max() < 2


def test_filling_a_traced_outline_gives_the_mask_back():
    mask = drawn("right")
    filled = fill(trace(mask, "right"), mask.shape)
    assert (filled & mask).sum() / (filled | mask).sum() > 0.93


@pytest.mark.parametrize("side", ["right", "left"])
def test_normals_point_outwards(side):
    mask = drawn(side)
    outline = trace(mask, side)
    outside = (outline + 4 * outward_normals(outline)).astype(int).clip(0, [99, 239])
    inside = (outline - 4 * outward_normals(outline)).astype(int)
    assert mask[inside[:, 1], inside[:, 0]].mean() > 0.9
    assert mask[outside[:, 1], outside[:, 0]].mean() < 0.1


@given(
    u=st.floats(-1, 2),
    v=st.floats(-1, 2),
    lateral=st.floats(0, 400),
    width=st.sampled_from([-250.0, -40.0, 40.0, 250.0]),
    top=st.floats(0, 300),
    height=st.floats(20, 600),
)
def test_frames_are_inverse_to_each_other(u, v, lateral, width, top, height):
    frame = np.array([lateral, lateral + width, top, top + height])
    there = from_unit(np.array([[u, v]]), frame)
    assert to_unit(there, frame)[0] == pytest.approx([u, v], abs=1e-6)
