"""Pictures are upright, and lines are where the regions are."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.data.images import SourceImage, read_image
from model.inference.overlays import draw, panels_for
from storage.imaging.slices import Slice
from storage.records import Box, Grounding, Mask, Tag, VolumeBox
from tests.model.inference.memorized import BLOCK, DISC_XYXY, block

TEXT_PX = 26  # height of a line of the legend
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


def test_the_pixels_shown_are_those_of_the_block_that_is_outlined(ct: SourceImage) -> None:
    picture = np.asarray(draw(ct, [masked(block())]))
    rows, columns = np.nonzero((picture == RED).all(-1)[:, : picture.shape[1] // 2])
    lines = rows > TEXT_PX
    top, bottom = rows[lines].min(), rows[lines].max()
    left, right = columns[lines].min(), columns[lines].max()
    axial = picture[:, : picture.shape[1] // 2]
    assert axial[top + 6 : bottom - 6, left + 6 : right - 6].min() > 150
    assert axial[top + 6 : bottom - 6, left - 12 : left - 6].max() < 80
    assert axial[top - 12 : top - 6, left + 6 : right - 6].max() < 80


def test_slices_go_through_what_they_show(ct: SourceImage) -> None:
    z = BLOCK[1]
    for region in (masked(block()), boxed([[8, 20, 10], [24, 34, 18]])):
        axial, coronal = panels_for(ct.grid, region)
        assert axial is not None
        assert coronal is not None
        assert z.start <= axial.index < z.stop
        assert BLOCK[2].start <= coronal.index < BLOCK[2].stop
    middle, _ = panels_for(ct.grid, masked(np.zeros_like(block())))
    assert middle == Slice("axial", ct.grid.ras_shape[2] // 2)


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


def test_a_ct_has_a_row_of_slices_for_each_phrase(ct: SourceImage) -> None:
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
