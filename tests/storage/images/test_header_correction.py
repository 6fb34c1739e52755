from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from storage.images.header_correction import HeaderCorrection, split_correction
from storage.images.loading import describe_image, load_volume
from storage.images.types import ImageError

CORRECTION = HeaderCorrection(2.0, -1024.5, (0.7, 0.8, 2.5e-1))


def test_a_uri_gives_back_its_file_and_correction() -> None:
    path = Path("/data/a#b=c.nii.gz")
    assert split_correction(Path(CORRECTION.uri(path))) == (path, CORRECTION)
    for plain in ("/data/a.nii.gz", "/data/a.nii.gz#slope=1", "/data/a.png#slope=1&intercept=0"):
        assert split_correction(Path(plain)) == (Path(plain), None)


def test_what_the_header_says_of_size_and_scale_counts_for_nothing(tmp_path: Path) -> None:
    """A quarter turn, a scale in the header, and a pixdim that contradicts the sform."""
    affine = np.array([[0, 9.0, 0, 5], [9.0, 0, 0, 6], [0, 0, 9.0, 7], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine)
    image.header["pixdim"][1:4] = 4
    image.header.set_slope_inter(3, 4)
    path = tmp_path / "a.nii"
    nib.save(image, path)
    with pytest.raises(ImageError):
        load_volume(path)
    uri = Path(CORRECTION.uri(path))
    volume = load_volume(uri)
    stored = np.fromfile(path, np.int16, offset=352).reshape((2, 3, 4), order="F")
    np.testing.assert_array_equal(
        volume.hu, np.rint(stored.swapaxes(0, 1) * 2 - 1024.5).astype(int)
    )
    np.testing.assert_allclose(volume.spacing_xyz_mm, (0.8, 0.7, 0.25))
    assert describe_image(uri).spacing_mm == pytest.approx((0.8, 0.7, 0.25))


def test_a_file_without_directions_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(ImageError, match="neither a qform nor an sform"):
        load_volume(Path(CORRECTION.uri(tmp_path / "a.nii")))
