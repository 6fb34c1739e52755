"""Views of radiographs and slices: what a page is told of them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from dashboard.pictures import target_window
from dashboard.views import box_shape, mask_shape, radiograph_view, slice_view
from storage.images.types import Radiograph, Volume
from storage.images.volume_files import read_label_ids
from storage.imaging.slice_selection import WindowedSlice
from storage.imaging.slices import Slice, largest_slices
from storage.imaging.windows import windows
from storage.records import Box
from taxonomy.targets import load_taxonomy

SOFT = target_window("heart")


def test_the_outline_of_a_mask_is_a_path_in_pixels_of_the_slice(real_input) -> None:
    mask = read_label_ids(real_input("totalsegmentator/heart_heart.nii.gz"))[0] > 0
    for shown in largest_slices(mask):
        shape = mask_shape(1, mask, shown)
        assert shape is not None
        assert shape.area == shown.of(mask).sum()
        rows, columns = np.nonzero(shown.of(mask))
        points = [
            [float(number) for number in point.split(",")]
            for point in shape.path.strip("MZ").replace("ZM", " ").split()
        ]
        low, high = np.min(points, axis=0), np.max(points, axis=0)
        np.testing.assert_allclose(low, (columns.min(), rows.min()), atol=0.5)
        np.testing.assert_allclose(high, (columns.max() + 1, rows.max() + 1), atol=0.5)
        assert shape.label_xy[1] == pytest.approx(low[1], abs=0.1)


def test_a_slice_that_misses_the_mask_has_no_outline() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[2, 2, 2] = True
    assert mask_shape(1, mask, Slice("axial", 3)) is None


def test_a_slice_is_shown_in_its_window_with_its_proportions() -> None:
    hu = np.full((8, 16, 32), -160, np.int16)
    hu[:4] = 240  # the patient's left, on the right of the picture
    volume = Volume(hu, np.diag([4.0, 2.0, 1.0, 1.0]))
    view = slice_view(volume, WindowedSlice("axial", 2, SOFT), [])
    assert (view.width, view.height, view.aspect) == (8, 16, 1.0)
    assert view.caption == "Axial 3 of 32 from the feet · soft tissue window (W\xa0400, L\xa040)"
    data = base64.b64decode(view.source.removeprefix("data:image/jpeg;base64,"))
    grey = np.asarray(Image.open(io.BytesIO(data)))
    assert grey[:, :200].max() < 12
    assert grey[:, -200:].min() > 243


def test_boxes_keep_stored_pixels_and_small_ones_lie_on_top() -> None:
    radiograph = Radiograph(np.zeros((100, 50), np.float32), (2.0, 1.0), "PA", "CR")
    small, large = Box(10.25, 20, 30, 40, 0.5), Box(0, 0, 50, 100, 0.5)
    view = radiograph_view(radiograph, [box_shape(1, small), box_shape(2, large)])
    assert (view.width, view.height, view.aspect) == (50, 100, 0.25)
    assert [shape.number for shape in view.shapes] == [2, 1]
    assert view.shapes[1].path == "M10.2,20.0H30.0V40.0H10.2Z"


@pytest.mark.parametrize(
    ("target", "window"),
    [
        ("heart", "soft tissue"),
        ("lung nodule", "lung"),
        ("rib", "bone"),
        (None, "soft tissue"),
    ],
)
def test_a_target_is_read_in_the_window_of_its_group(target, window) -> None:
    assert target_window(target).name == window


def test_windows_are_declared_for_groups_of_the_taxonomy() -> None:
    groups = {target.group for target in load_taxonomy().targets.values()}
    assert {group for window in windows().values() for group in window.groups} <= groups
