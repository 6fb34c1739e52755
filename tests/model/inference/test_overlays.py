"""Pictures are upright, and lines are where the regions are."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.data.images import SourceImage, read_image
from model.inference.overlays import draw
from model.inference.planes import AXIAL, CORONAL, Plane, grey, planes_through
from storage.records import Box, Grounding, Mask, Tag, VolumeBox
from tests.model.inference.memorised import BLOCK, DISC_XYXY, block

RED = np.array([0xFF, 0x5A, 0x5F])


def masked(voxels: NDArray[np.bool_]) -> Tag:
    return Tag(0, 5, "heart", "heart", "anatomy", Grounding(mask=Mask.of(voxels, None)))


def boxed(corners: list[list[float]], kind: type[Box] | type[VolumeBox] = VolumeBox) -> Tag:
    return Tag(0, 6, "nodule", None, None, Grounding((kind.from_corners(np.array(corners), 0.8),)))


@pytest.fixture
def ct(pictures: dict[str, Path]) -> SourceImage:
    return read_image(pictures["ct.nii.gz"])


@pytest.fixture
def film(pictures: dict[str, Path]) -> SourceImage:
    return read_image(pictures["film.png"])


def test_a_ct_is_seen_with_right_on_the_left_and_front_or_head_up(ct: SourceImage) -> None:
    depth, height, width = ct.grid.array_shape
    marked = np.zeros(ct.grid.array_shape, np.float32)
    marked[5, height - 1, width - 1] = 1  # the patient's right, in front
    assert Plane(AXIAL, 5, ct.grid).of(marked)[0, 0] == 1
    marked[:] = 0
    marked[depth - 1, height - 1, 3] = 1  # the patient's right, at the head
    assert Plane(CORONAL, 3, ct.grid).of(marked)[0, 0] == 1


def test_proportions_are_those_of_the_patient(ct: SourceImage) -> None:
    np.testing.assert_allclose(Plane(AXIAL, 0, ct.grid).pixel_mm, (2.5, 1.0), atol=1e-5)
    np.testing.assert_allclose(Plane(CORONAL, 0, ct.grid).pixel_mm, (1.5, 1.0), atol=1e-5)


def test_a_box_and_the_outline_of_the_same_voxels_agree(ct: SourceImage) -> None:
    corners = ct.grid.boxes_to_array(np.array([[[8, 20, 10], [24, 34, 18]]], float))[0]
    for plane in planes_through(ct.grid, masked(block())):
        [line] = plane.outlines(ct.grid.to_array(block()))
        left, top, right, bottom = plane.box(corners) or (0, 0, 0, 0)
        np.testing.assert_allclose(line.min(0), (left, top), atol=0.01)
        np.testing.assert_allclose(line.max(0), (right, bottom), atol=0.01)
        shown = grey(ct, plane)[int(top) : int(bottom), int(left) : int(right)]
        assert shown.min() > 0.6


def test_a_plane_that_misses_a_box_does_not_show_it(ct: SourceImage) -> None:
    corners = np.array([[2.0, 0, 0], [4.0, 9, 9]])
    assert Plane(AXIAL, 1, ct.grid).box(corners) is None
    assert Plane(AXIAL, 2, ct.grid).box(corners) is not None
    assert Plane(AXIAL, 3, ct.grid).box(corners) is not None
    assert Plane(AXIAL, 4, ct.grid).box(corners) is None


def test_cuts_go_through_what_they_show(ct: SourceImage) -> None:
    z = BLOCK[1]
    for region in (masked(block()), boxed([[8, 20, 10], [24, 34, 18]])):
        axial, coronal = planes_through(ct.grid, region)
        assert z.start <= axial.index < z.stop
        assert BLOCK[2].start <= coronal.index < BLOCK[2].stop
    middle, _ = planes_through(ct.grid, masked(np.zeros_like(block())))
    assert middle.index == ct.grid.array_shape[0] // 2


def test_a_radiograph_is_drawn_upright_with_its_box(film: SourceImage) -> None:
    left, top, right, bottom = DISC_XYXY
    picture = np.asarray(draw(film, [boxed([[0, top, left], [1, bottom, right]], Box)]))
    rows, columns = np.nonzero((picture == RED).all(-1))
    scale = 1100 / 110
    legend = len(picture) - 1100
    lines = rows > legend
    np.testing.assert_allclose(
        (
            columns[lines].min(),
            rows[lines].min() - legend,
            columns[lines].max(),
            rows.max() - legend,
        ),
        np.array(DISC_XYXY) * scale,
        atol=3,
    )
    inside = picture[legend + int(76 * scale), int(36 * scale)]
    assert inside.min() > 200


def test_a_ct_has_a_row_of_cuts_for_each_phrase(ct: SourceImage) -> None:
    one = draw(ct, [masked(block())])
    two = draw(ct, [masked(block()), boxed([[8, 20, 10], [24, 34, 18]])])
    assert two.height > 1.8 * one.height
    assert (np.asarray(one) == RED).all(-1).sum() > 300


def test_nothing_found_is_a_picture_too(ct: SourceImage, film: SourceImage) -> None:
    empty = Tag(0, 5, "heart", "heart", "anatomy", Grounding())
    for source in (ct, film):
        assert draw(source, []).width > 100
        assert draw(source, [empty]).width > 100


def test_a_mask_is_encoded_on_the_grid_of_the_file(film: SourceImage) -> None:
    mask = np.zeros(film.grid.shape, np.bool_)
    mask[0, 60:92, 20:52] = True
    picture = np.asarray(draw(film, [masked(mask)]))
    assert (picture == RED).all(-1).sum() > 1000
