import base64
import io
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dashboard.cuts import best_cut, choose_cuts, measure, window_of
from dashboard.views import Cut, box_shape, cut_view, displayed, mask_shape, radiograph_view
from storage.images.loading import load_volume
from storage.images.types import Radiograph, Volume
from storage.records import Box

SOFT = window_of(None)


def marked(shape: tuple[int, int, int], *where: int) -> np.ndarray:
    grid = np.zeros(shape, bool)
    grid[where] = True
    return grid


def test_the_patients_right_is_on_the_left_front_is_up_and_head_is_up() -> None:
    right_front_head = marked((5, 6, 7), 4, 5, 6)
    assert displayed(right_front_head, Cut("axial", 6, SOFT))[0, 0]
    assert displayed(right_front_head, Cut("coronal", 5, SOFT))[0, 0]
    assert displayed(right_front_head, Cut("coronal", 5, SOFT)).shape == (7, 5)


@pytest.fixture(scope="module")
def heart(real_input):
    volume = load_volume(real_input("totalsegmentator/thorax_ct.nii.gz"))
    mask = load_volume(real_input("totalsegmentator/heart_heart.nii.gz")).hu > 0
    assert mask.shape == volume.hu.shape
    return volume, mask


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_an_outline_encloses_the_mask_that_it_was_drawn_from(heart, plane) -> None:
    _, mask = heart
    middle = mask.shape[2 if plane == "axial" else 1] // 2
    cut = Cut(plane, middle, SOFT)
    wanted = displayed(mask, cut)
    shape = mask_shape(1, mask, cut)
    assert shape is not None
    assert shape.area == wanted.sum()
    scale = 8
    canvas = Image.new("1", (wanted.shape[1] * scale, wanted.shape[0] * scale))
    for outline in shape.path.split("M")[1:]:
        points = [float(number) * scale for number in re.findall(r"-?[\d.]+", outline)]
        ImageDraw.Draw(canvas).polygon(points, fill=1)
    drawn = np.asarray(canvas)[scale // 2 :: scale, scale // 2 :: scale]
    assert (drawn & wanted).sum() / (drawn | wanted).sum() > 0.97


def test_a_cut_that_misses_the_mask_has_no_outline() -> None:
    assert mask_shape(1, marked((5, 6, 7), 2, 2, 2), Cut("axial", 3, SOFT)) is None


def test_a_cut_looks_as_wide_and_high_as_it_is_in_mm() -> None:
    volume = Volume(np.zeros((10, 20, 40), np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
    assert cut_view(volume, Cut("axial", 0, SOFT), []).aspect == pytest.approx(10 / 40)
    assert cut_view(volume, Cut("coronal", 0, SOFT), []).aspect == pytest.approx(10 / 120)


def picture(source: str) -> np.ndarray:
    data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_the_window_maps_its_ends_to_black_and_white() -> None:
    hu = np.full((8, 8, 8), -160, np.int16)
    hu[:4] = 240  # the patient's left, on the right of the picture
    grey = picture(cut_view(Volume(hu, np.eye(4)), Cut("axial", 0, SOFT), []).source)
    assert grey[:, :200].max() < 12
    assert grey[:, -200:].min() > 243


def test_boxes_keep_stored_pixels_and_small_ones_lie_on_top() -> None:
    radiograph = Radiograph(np.zeros((100, 50), np.float32), (2.0, 1.0), "PA", "CR")
    small, large = Box(10.25, 20, 30, 40, 0.5), Box(0, 0, 50, 100, 0.5)
    view = radiograph_view(radiograph, [box_shape(1, small), box_shape(2, large)])
    assert (view.width, view.height, view.aspect) == (50, 100, 0.25)
    assert [shape.number for shape in view.shapes] == [2, 1]
    assert view.shapes[1].path == "M10.2,20.0H30.0V40.0H10.2Z"


def test_every_mask_has_a_cut_where_it_is_nearly_as_large_as_anywhere(heart) -> None:
    _, mask = heart
    middle = int(np.median(np.nonzero(mask)[2]))
    low, high = mask.copy(), mask.copy()
    low[:, :, middle:] = False
    high[:, :, :middle] = False
    parts = [
        ("heart", "anatomy", low),
        ("lung nodule", "abnormality", high),
        ("rib", "anatomy", mask),
    ]
    profiles = [measure(i, *part) for i, part in enumerate(parts, 1)]
    cuts = choose_cuts(profiles, mask.shape)
    assert [cut.plane for cut in cuts].count("coronal") == 1
    for profile in profiles:
        best = best_cut(profile, cuts)
        assert best is not None
        assert cuts[best].window == window_of(
            {1: "heart", 2: "lung nodule", 3: "rib"}[profile.number]
        )
        assert profile.axial[cuts[best].index] >= 0.95 * profile.axial.max()


def test_many_masks_share_few_cuts_and_abnormalities_keep_theirs() -> None:
    places = [marked((4, 4, 40), 1, 1, z) for z in range(20)]
    profiles = [
        measure(i, "heart", "abnormality" if i == 19 else "anatomy", mask)
        for i, mask in enumerate(places)
    ]
    cuts = choose_cuts(profiles, (4, 4, 40))
    axial = [cut for cut in cuts if cut.plane == "axial"]
    assert len(axial) == 8
    assert best_cut(profiles[19], axial) is not None


def test_a_volume_in_which_nothing_was_found_still_has_pictures() -> None:
    assert [(cut.plane, cut.index) for cut in choose_cuts([], (10, 20, 30))] == [
        ("axial", 15),
        ("coronal", 10),
    ]
