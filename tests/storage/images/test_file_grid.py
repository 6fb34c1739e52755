"""Voxels and boxes keep their positions between a file's axes, the array and RAS+."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from storage.images.file_grid import FileGrid
from storage.images.loading import load_volume
from storage.images.types import Volume

SHAPE, SPACING_MM = (5, 6, 7), (1.0, 2.0, 3.0)
AXCODES = [
    tuple(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("LR", "PA", "IS"))
    for signs in product((0, 1), repeat=3)
]


@pytest.mark.parametrize("axcodes", AXCODES, ids="".join)
def test_a_file_of_any_axes(tmp_path, axcodes) -> None:
    hu = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    there = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axcodes))
    stored = nib.orientations.apply_orientation(hu, there)
    affine = np.diag([*SPACING_MM, 1.0]) @ inv_ornt_aff(there, SHAPE)
    nib.Nifti1Image(stored, affine).to_filename(tmp_path / "ct.nii.gz")

    grid = FileGrid.of(load_volume(tmp_path / "ct.nii.gz"))

    assert grid.shape == stored.shape
    assert grid.ras_shape == SHAPE
    assert grid.spacing_xyz_mm == pytest.approx(SPACING_MM)
    np.testing.assert_array_equal(grid.to_ras(stored), hu)
    np.testing.assert_array_equal(grid.from_ras(hu), stored)
    np.testing.assert_array_equal(grid.to_array(stored), hu.transpose(2, 0, 1))
    np.testing.assert_array_equal(grid.from_array(grid.to_array(stored)), stored)
    low = np.argwhere(stored == hu[1, 2, 3])[0].astype(float)
    box = np.stack([low, low + 1])[None]
    assert grid.boxes_to_ras(box).tolist() == [[[1, 2, 3], [2, 3, 4]]]
    assert grid.boxes_from_array(grid.boxes_to_array(box)).tolist() == box.tolist()


def test_the_files_of_a_series_have_the_grid_of_the_volume() -> None:
    hu = np.zeros(SHAPE, np.int16)
    grid = FileGrid.of(Volume(hu, np.diag([*SPACING_MM, 1.0])))
    np.testing.assert_array_equal(grid.to_ras(hu), hu)
    assert grid.voxel_mm3 == pytest.approx(6)


def test_a_radiograph_has_no_position_in_the_patient() -> None:
    grid = FileGrid((1, 40, 30))
    assert grid.voxel_mm3 is None
    with pytest.raises(ValueError, match="no position"):
        _ = grid.spacing_xyz_mm
