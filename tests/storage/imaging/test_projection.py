"""Projection of CT volumes: geometry on phantoms, orientation on a real CT, DICOM round trip."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.images.loading import load_radiograph, load_volume
from storage.images.types import Radiograph, Volume
from storage.imaging.projection import (
    PIXEL_MM,
    FrontalGrid,
    outline_box_xyxy_px,
    project,
    project_mask,
    water_path_mm,
    write_radiograph_dicom,
)


def phantom(shape=(40, 20, 30), spacing=(1.4, 2.0, 2.1), origin=(-10.0, 5.0, 100.0), hu=-1000):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Volume(np.full(shape, hu, dtype=np.int16), affine)


def test_path_counts_water_equivalent_millimetres_along_the_front_to_back_axis():
    volume = phantom()
    volume.hu[10:20, 4:9, 5:15] = 0
    volume.hu[10:20, 9:11, 5:15] = 1000
    volume.hu[0, 0, 0] = -2048
    path = water_path_mm(volume)
    assert path[15, 10] == pytest.approx(5 * 2.0 + 2 * 2 * 2.0)
    assert path[0, 0] == 0


def test_patient_right_is_on_the_image_left_and_the_head_is_up():
    volume = phantom()
    volume.hu[30:38, :, 22:28] = 500  # high x is right, high z is the head
    rows, columns = np.nonzero(project(volume).pixels > 0.5)
    grid = FrontalGrid.of(volume)
    assert columns.max() < grid.columns / 2
    assert rows.max() < grid.rows / 2


def test_pixels_are_square_and_cover_the_volume():
    volume = phantom()
    radiograph = project(volume)
    assert radiograph.spacing_yx_mm == (PIXEL_MM, PIXEL_MM)
    assert radiograph.pixels.shape == (round(30 * 2.1 / PIXEL_MM), round(40 * 1.4 / PIXEL_MM))
    assert radiograph.pixels.dtype == np.float32


@given(
    low=st.tuples(*[st.integers(0, 15)] * 3),
    size=st.tuples(*[st.integers(1, 4)] * 3),
)
def test_a_block_projects_to_its_own_millimetres(low, size):
    volume = phantom(shape=(20, 20, 20))
    mask = np.zeros(volume.hu.shape, dtype=bool)
    mask[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] = True
    box = outline_box_xyxy_px(project_mask(mask, volume.affine, FrontalGrid.of(volume)))
    assert box is not None
    x_min, y_min, x_max, y_max = np.array(box) * PIXEL_MM
    assert x_min == pytest.approx((20 - low[0] - size[0]) * 1.4, abs=PIXEL_MM)
    assert x_max == pytest.approx((20 - low[0]) * 1.4, abs=PIXEL_MM)
    assert y_min == pytest.approx((20 - low[2] - size[2]) * 2.1, abs=PIXEL_MM)
    assert y_max == pytest.approx((20 - low[2]) * 2.1, abs=PIXEL_MM)


def test_a_cropped_mask_with_its_own_affine_gives_the_same_outline():
    volume = phantom()
    mask = np.zeros(volume.hu.shape, dtype=bool)
    mask[12:18, 3:6, 20:29] = True
    cropped_affine = volume.affine.copy()
    cropped_affine[:3, 3] += volume.affine[:3, :3] @ [10, 2, 15]
    grid = FrontalGrid.of(volume)
    whole = project_mask(mask, volume.affine, grid)
    crop = project_mask(mask[10:20, 2:8, 15:30], cropped_affine, grid)
    assert np.array_equal(whole, crop)


def test_a_mask_outside_of_the_picture_has_no_box():
    volume = phantom()
    far = volume.affine.copy()
    far[0, 3] += 1000
    outline = project_mask(np.ones((4, 4, 4), dtype=bool), far, FrontalGrid.of(volume))
    assert outline_box_xyxy_px(outline) is None


def test_a_volume_of_air_is_black():
    assert project(phantom()).pixels.max() == 0


def test_the_real_aorta_lies_left_of_the_middle_and_is_bright(real_input):
    volume = load_volume(real_input("totalsegmentator/thorax_ct.nii.gz"))
    image = nib.as_closest_canonical(nib.load(real_input("totalsegmentator/thorax_aorta.nii.gz")))
    outline = project_mask(np.asarray(image.dataobj), image.affine, FrontalGrid.of(volume))
    pixels = project(volume).pixels
    assert np.mean(np.nonzero(outline)[1]) > 0.5 * outline.shape[1]
    assert np.median(pixels[outline]) > np.median(pixels[~outline]) + 0.15


def test_dicom_keeps_pixels_spacing_and_view_and_its_bytes_are_reproducible(tmp_path):
    ramp = np.linspace(0, 1, 35 * 20, dtype=np.float32).reshape(35, 20)
    radiograph = Radiograph(ramp, (0.7, 0.7), "PA", "DX")
    first, second, other = (tmp_path / name for name in ("a.dcm", "b.dcm", "c.dcm"))
    write_radiograph_dicom(radiograph, first, "ramp")
    write_radiograph_dicom(radiograph, second, "ramp")
    write_radiograph_dicom(Radiograph(1 - ramp, (0.7, 0.7), "PA", "DX"), other, "ramp")
    assert first.read_bytes() == second.read_bytes()
    assert pydicom.dcmread(first).SOPInstanceUID != pydicom.dcmread(other).SOPInstanceUID
    loaded = load_radiograph(first)
    assert np.abs(loaded.pixels - ramp).max() < 1e-4
    assert (loaded.spacing_yx_mm, loaded.view, loaded.modality) == ((0.7, 0.7), "PA", "DX")
