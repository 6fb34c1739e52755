"""Structures of a label map have the voxels and the positions that the file gives them."""

import nibabel as nib
import numpy as np
import pytest

from storage.datasets import chest_ct
from storage.images.label_map import LabelMap


@pytest.fixture
def labels(tmp_path) -> LabelMap:
    """Axes L, A, S with 2 mm voxels; 300 is beyond a byte, and structure 7 does not occur."""
    ids = np.zeros((10, 8, 6), np.int16)
    ids[1:4, 2, 3] = 2
    ids[6, 4:6, 1:3] = 300
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = 50, 10, 0
    nib.Nifti1Image(ids, affine).to_filename(tmp_path / "mask.nii.gz")
    table = tmp_path / "structures.csv"
    table.write_text("id,structure\n7,spleen\n300,liver\n2,rib\n")
    return LabelMap.load(tmp_path / "mask.nii.gz", table)


def test_names_are_those_that_occur(labels) -> None:
    assert labels.names == ["liver", "rib"]


def test_masks_lie_on_the_ras_grid(labels) -> None:
    # The file's x index runs to the left: voxel i becomes 9 - i.
    expected = np.zeros((10, 8, 6), bool)
    expected[6:9, 2, 3] = True
    np.testing.assert_array_equal(labels.mask("rib"), expected)
    assert labels.mask("rib", "liver").sum() == 3 + 4
    assert not labels.mask("spleen").any()
    assert not labels.mask().any()


def test_a_crop_keeps_its_position_in_the_patient(labels) -> None:
    mask, affine = labels.crop("rib")
    assert mask.shape == (3, 1, 1)
    assert mask.all()
    # The lowest voxel along RAS x is the file's voxel 3: 50 - 2 × 3 mm.
    assert (affine @ (0, 0, 0, 1)).tolist() == [44, 14, 6, 1]


def test_unknown_and_absent_structures_are_told_apart(labels) -> None:
    with pytest.raises(KeyError, match="heart"):
        labels.mask("heart")
    with pytest.raises(KeyError, match="spleen"):
        labels.crop("spleen")


def test_the_chest_ct_has_89_structures_on_its_grid(real_input) -> None:
    real_input("chest_ct/mask.nii.gz")
    labels, volume = chest_ct.load_labels(), chest_ct.load_ct()
    assert len(labels.names) == 89
    assert labels.ids.shape == volume.hu.shape
    np.testing.assert_allclose(labels.affine, volume.affine)
    trachea, _ = labels.crop("trachea")
    assert labels.mask("trachea").sum() == trachea.sum()
