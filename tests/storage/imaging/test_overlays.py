"""Outlines enclose their masks, and pictures have the proportions asked for."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from storage.images.volume_files import read_label_ids
from storage.imaging.overlays import jpeg_data_uri, mask_outlines, picture
from storage.imaging.slices import largest_slices
from storage.overlap import mask_iou

SCALE = 8


@pytest.mark.parametrize(("tolerance_px", "least"), [(0.0, 0.98), (0.3, 0.97)])
def test_an_outline_encloses_the_mask_that_it_was_drawn_from(
    real_input, tolerance_px, least
) -> None:
    mask = read_label_ids(real_input("totalsegmentator/heart_heart.nii.gz"))[0] > 0
    for shown in largest_slices(mask):
        section = shown.of(mask)
        rows, columns = section.shape
        canvas = Image.new("1", (columns * SCALE, rows * SCALE))
        for line in mask_outlines(section, tolerance_px):
            ImageDraw.Draw(canvas).polygon([tuple(xy) for xy in line * SCALE], fill=1)
        drawn = np.asarray(canvas)[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]
        assert mask_iou(drawn, section) > least


def test_an_outline_at_the_border_is_closed() -> None:
    [line] = mask_outlines(np.ones((3, 5), bool))
    assert line[0].tolist() == line[-1].tolist()
    assert [*line.min(0), *line.max(0)] == pytest.approx([0, 0, 5, 3], abs=0.01)


@pytest.mark.parametrize(("aspect", "size"), [(0.5, (50, 100)), (1.0, (100, 100)), (4, (100, 25))])
def test_a_picture_has_the_proportions_asked_for(aspect, size) -> None:
    assert picture(np.zeros((7, 9), np.float32), aspect, 100).size == size


def test_a_data_uri_holds_the_picture() -> None:
    grey = np.zeros((64, 64), np.float32)
    grey[:, 32:] = 1
    source = jpeg_data_uri(picture(grey, 1, 64))
    data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    shown = np.asarray(Image.open(io.BytesIO(data)))
    assert shown[:, :24].max() < 12
    assert shown[:, -24:].min() > 243
