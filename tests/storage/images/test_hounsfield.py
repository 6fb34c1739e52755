"""Real CTs, and what crops, noise and clipping make of them, pass; other scales do not.

The cases are those that public bug reports tell of, made from real volumes thinned to every
second voxel.
"""

from functools import cache

import nibabel as nib
import numpy as np
import pytest

from storage.images.hounsfield import check_hounsfield
from storage.images.loading import load_volume
from storage.images.types import ImageError
from storage.images.volume_files import read_label_ids

CHEST, HEART, ABDOMEN = (
    "chest_ct/cxr.nii.gz",
    "totalsegmentator/heart_ct.nii.gz",
    "totalsegmentator/abdomen_crop_ct.nii.gz",
)


@pytest.fixture(scope="session")
def thinned(real_input):
    """A real CT of every second voxel."""

    @cache
    def read(name):
        return np.asarray(nib.nifti1.load(real_input(name)).dataobj)[::2, ::2, ::2].astype(np.int16)

    return read


def refusal(tmp_path, values):
    hu = np.clip(np.rint(values), -32768, 32767).astype(np.int16)
    with pytest.raises(ImageError) as caught:
        check_hounsfield(tmp_path, hu)
    assert caught.value.reason == "not_hounsfield"
    return caught.value.detail


def with_noise(hu, sigma):
    noise = np.random.default_rng(0).normal(0, sigma, hu.shape)
    return np.where(hu < -1500, hu, hu + noise).astype(np.int16)


def middle(hu):
    x, y, _ = (size // 4 for size in hu.shape)
    return hu[x:-x, y:-y]


def with_padding(hu):
    padded = hu.copy()
    padded[: len(hu) // 2] = -3024
    return padded


@pytest.mark.parametrize("name", [CHEST, HEART, ABDOMEN])
@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu,
        lambda hu: with_noise(hu, 120),  # low dose, sharp kernel
        middle,
        with_padding,
        lambda hu: np.clip(hu, -1000, 1000),  # as CT-RATE is often prepared
        lambda hu: np.maximum(hu, -1024),
        lambda hu: np.where(np.indices(hu.shape).sum(0) % 50 == 0, 3071, hu),  # metal
    ],
)
def test_real_volumes_pass(tmp_path, thinned, name, change):
    check_hounsfield(tmp_path, change(thinned(name)).astype(np.int16))


@pytest.mark.parametrize("name", [CHEST, HEART, ABDOMEN])
@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu + 1024,
        lambda hu: np.maximum(hu, -1000) + 1000,
        lambda hu: with_noise(np.maximum(hu, -1024), 60) + 1024,
        lambda hu: middle(hu) + 1024,
        lambda hu: with_padding(hu + 1024),
    ],
)
def test_stored_values_without_their_intercept(tmp_path, thinned, name, change):
    assert "a RescaleIntercept of -1" in refusal(tmp_path, change(thinned(name)))


def rescaled(low, high):
    return lambda hu: (np.clip(hu, -1000, 1000) + 1000) / 2000 * (high - low) + low


@pytest.mark.parametrize("name", [CHEST, HEART, ABDOMEN])
@pytest.mark.parametrize(
    "change",
    [
        lambda hu: np.maximum(hu, -1024) - 1024,  # the intercept applied twice
        lambda hu: hu + 8192,  # 7098…11535
        rescaled(0, 1),
        rescaled(-1, 1),
        rescaled(0, 255),
        rescaled(-128, 127),
        rescaled(0, 65535),
        lambda hu: np.clip(hu, -160, 240),
        lambda hu: hu * 10.0,
        lambda hu: hu / 10,
        lambda hu: -hu,
        lambda hu: np.where(hu < 0, hu + 65536.0, hu),  # signed values read as unsigned
        lambda hu: hu * 0,
        lambda hu: hu * 0 - 3024,
        lambda hu: (hu > 0) * 1,
        lambda hu: np.clip(hu // 10, 0, 117),
    ],
)
def test_other_scales_are_refused(tmp_path, thinned, name, change):
    said = refusal(tmp_path, change(thinned(name).astype(np.int32)))
    assert said.startswith(str(tmp_path))


def test_a_file_that_says_how_is_converted(tmp_path, thinned):
    hu = np.maximum(thinned(ABDOMEN), -1024)
    image = nib.Nifti1Image((hu + 1024).astype(np.uint16), np.diag([3.0, 3, 3, 1]))
    nib.save(image, tmp_path / "raw.nii.gz")
    image.header.set_slope_inter(1, -1024)
    nib.save(image, tmp_path / "scaled.nii.gz")
    assert np.array_equal(load_volume(tmp_path / "scaled.nii.gz").hu, hu)
    with pytest.raises(ImageError, match="-1024 added, they would be"):
        load_volume(tmp_path / "raw.nii.gz")


def test_a_mask_given_as_an_image(real_input):
    path = real_input("totalsegmentator/heart_heart.nii.gz")
    with pytest.raises(ImageError, match="Hounsfield"):
        load_volume(path)
    assert read_label_ids(path)[0].max() == 1
