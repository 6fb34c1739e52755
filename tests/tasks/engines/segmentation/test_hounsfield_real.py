"""The HU segmenter on the real CTs: agreement with the references, and partial fields of view."""

import nibabel as nib
import numpy as np
import pytest

from storage.datasets import chest_ct
from storage.images.loading import load_volume
from storage.images.types import Volume
from storage.images.volume_files import read_label_ids
from storage.overlap import dice
from storage.records import Site
from tasks.engines.protocols import Segmentation, Ungrounded
from tasks.engines.segmentation.hounsfield.chest import Chest
from tasks.engines.segmentation.hounsfield.engine import HounsfieldSegmenter
from tasks.engines.segmentation.hounsfield.nodules import at_site


@pytest.fixture(scope="module")
def chest_volume(real_input):
    return load_volume(real_input("chest_ct/cxr.nii.gz"))


@pytest.fixture(scope="module")
def chest(chest_volume):
    return Chest(chest_volume)


@pytest.fixture(scope="module")
def reference(real_input):
    real_input("chest_ct/mask.nii.gz")
    labels = chest_ct.load_labels()

    def union(*starts, end=""):
        return labels.mask(*(n for n in labels.names if n.startswith(starts) and n.endswith(end)))

    return union


def test_each_lung_agrees_with_the_reference(chest, reference):
    left, right = chest.left_lung(), chest.right_lung()
    assert dice(left, reference("lung_", end="left")) >= 0.975
    assert dice(right, reference("lung_", end="right")) >= 0.975
    assert not (left & right).any()


def test_the_trachea_agrees_with_the_reference(chest, reference):
    assert dice(chest.trachea(), reference("trachea")) >= 0.85


def test_bones_agree_with_the_reference_in_a_contrast_scan(chest, reference):
    bones = ("vertebrae_", "rib_", "sternum", "clavicula_", "scapula_", "humerus_")
    assert dice(chest.skeleton(), reference(*bones)) >= 0.75
    assert dice(chest.vertebrae(), reference("vertebrae_")) >= 0.75
    assert dice(chest.left_ribs(), reference("rib_left")) >= 0.75
    assert dice(chest.right_ribs(), reference("rib_right")) >= 0.75


def test_the_nodule_is_found_with_at_most_two_false_ones(chest, chest_volume):
    centre = np.linalg.inv(chest_volume.affine) @ (-57, -86, -115, 1)
    masks = [np.argwhere(chest.draw_nodules([nodule])) for nodule in chest.nodules]
    low, high = masks[0].min(axis=0), masks[0].max(axis=0) + 1
    half = np.array([23, 22, 22]) / 2 / chest_volume.spacing_xyz_mm
    shared = np.minimum(high, centre[:3] + half) - np.maximum(low, centre[:3] - half)
    union = np.prod(high - low) + np.prod(2 * half) - np.prod(shared)
    assert shared.min() > 0
    assert np.prod(shared) / union >= 0.5
    assert len(masks) <= 3


def test_the_nodule_lies_where_a_report_would_say(chest):
    assert at_site(chest.nodules[0], "left", ("lower",))
    assert not at_site(chest.nodules[0], "right", ())
    assert not at_site(chest.nodules[0], None, ("basal",))


def test_lung_bases_of_an_abdominal_scan_are_lung_and_bowel_is_not(real_input):
    volume = load_volume(real_input("totalsegmentator/abdomen_ct.nii.gz"))
    lung = Chest(volume).lungs()
    assert 50 < lung.sum() * np.prod(volume.spacing_xyz_mm) / 1000 < 150
    assert not lung[:, :, : lung.shape[2] // 2].any()
    (trachea,) = HounsfieldSegmenter().segment(volume, [Site("trachea")])
    assert isinstance(trachea, Ungrounded)
    assert trachea.reason == "not_found"


def test_a_crop_without_air_around_it_still_has_both_lungs_and_no_vertebrae_in_the_heart(
    real_input,
):
    volume = load_volume(real_input("totalsegmentator/heart_ct.nii.gz"))
    sites = [Site("left lung"), Site("right lung")]
    masks = HounsfieldSegmenter().segment(volume, sites)
    whole = load_volume(real_input("totalsegmentator/thorax_ct.nii.gz"))
    offset = np.linalg.inv(whole.affine) @ volume.affine[:, 3]
    x, y, z = np.round(offset[:3]).astype(int)
    nx, ny, nz = volume.hu.shape
    crop = (slice(x, x + nx), slice(y, y + ny), slice(z, z + nz))
    chest = Chest(whole)
    for mask, lung in zip(masks, (chest.left_lung(), chest.right_lung()), strict=True):
        assert isinstance(mask, Segmentation)
        assert dice(mask.voxels, lung[crop]) > 0.97
    heart = nib.as_closest_canonical(nib.load(real_input("totalsegmentator/heart_heart.nii.gz")))
    in_heart = np.asanyarray(heart.dataobj)[crop] > 0
    vertebrae = Chest(volume).vertebrae()
    assert (vertebrae & in_heart).sum() < 0.01 * in_heart.sum()


def test_padding_outside_the_field_of_view_changes_nothing(real_input):
    volume = load_volume(real_input("totalsegmentator/abdomen_ct.nii.gz"))
    wider = np.pad(volume.hu, ((9, 9), (9, 9), (0, 0)), constant_values=-2048)
    padded = Volume(wider.astype(np.int16), volume.affine)
    inner = Chest(padded).lungs()[9:-9, 9:-9]
    assert dice(inner, Chest(volume).lungs()) > 0.99


def test_vessels_across_thick_slices_are_not_nodules(real_input):
    volume = load_volume(real_input("thick_slice_ct/lung1_image.nrrd"))
    ids, _ = read_label_ids(real_input("thick_slice_ct/lung1_label.nrrd"))
    chest = Chest(volume)
    overlaps = [dice(chest.draw_nodules([nodule]), ids > 0) for nodule in chest.nodules]
    assert max(overlaps) >= 0.85
    assert len(overlaps) <= 3
