"""What a header says of voxel size and place: one statement, or the file is refused."""

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from storage.images.loading import describe_image, load_volume
from storage.images.types import ImageError
from storage.images.volume_files import read_label_ids

SHAPE = (20, 15, 10)
SPACING_MM = (0.7, 0.7, 2.5)


def oblique(spacing=SPACING_MM, degrees=12.0, shear=0.0):
    affine = np.eye(4)
    tilt = np.eye(3)
    tilt[1, 2] = shear
    turn = Rotation.from_euler("xyz", [degrees, 3, -5], degrees=True).as_matrix()
    affine[:3, :3] = turn @ tilt @ np.diag([-spacing[0], -spacing[1], spacing[2]])
    affine[:3, 3] = 150, 120, -800
    return affine


def write(path, sform=None, qform=None, codes=(1, 1), pixdim=None, units="mm", **fields):
    """A file whose header fields are set one by one, as tools that disagree with themselves do."""
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.int16)
    sform = oblique() if sform is None else sform
    header.set_qform(sform if qform is None else qform, code=codes[0], strip_shears=True)
    header.set_sform(sform, code=codes[1])
    header.set_xyzt_units(units)
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    for name, value in fields.items():
        header[name] = value
    header["vox_offset"], header["magic"] = 352, b"n+1"
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16) % 9
    path.write_bytes(header.binaryblock + b"\0" * 4 + voxels.tobytes())
    return path


def refused(path):
    said = set()
    for use in (load_volume, describe_image, read_label_ids):
        with pytest.raises(ImageError) as caught:
            use(path)
        said.add((caught.value.reason, caught.value.detail))
    assert len(said) == 1
    return said.pop()


def moved(affine, *mm):
    place = affine.copy()
    place[:3, 3] += mm
    return place


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"codes": (1, 0), "qform": oblique(), "sform": np.eye(4)},
        {"codes": (0, 2)},
        {"codes": (0, 2), "pixdim": (1, 1, 1)},  # never filled in
        {"codes": (0, 2), "pixdim": (0, 0, 0)},
        {"codes": (0, 1), "pixdim": (0.701, 0.699, 2.5)},  # rounded
        {"pixdim": (-0.7, 0.7, 2.5)},
        {"sform": oblique(shear=0.4)},  # a gantry tilted by 22 degrees
        {"codes": (0, 1), "sform": oblique(shear=0.4), "pixdim": SPACING_MM},
        {"codes": (1, 4), "sform": moved(oblique(), 30, -20, 5), "qform": oblique()},
        {"units": "unknown"},
        {"qform": moved(oblique(), 0.3, 0.3, 0.3)},
    ],
)
def test_statements_that_agree(tmp_path, header):
    volume = load_volume(write(tmp_path / "a.nii", **header))
    shear = np.hypot(1, 0.4) if "shear" in repr(header) else 1
    x, y, z = volume.spacing_xyz_mm
    assert (x, y) == pytest.approx((0.7, 0.7), rel=0.02)
    assert 2.5 * 0.98 <= z <= 2.5 * 1.1 * shear


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"codes": (0, 1), "sform": np.eye(4), "pixdim": (1.5, 1.5, 1.5)}, "1 × 1 × 1 mm by its"),
        ({"codes": (0, 1), "pixdim": (0.7, 0.7, 0.8)}, "0.7 × 0.7 × 0.8 mm by its pixdim"),
        ({"codes": (1, 1), "pixdim": (1, 1, 1)}, "two voxel sizes"),
        ({"codes": (0, 1), "pixdim": (0.7, 0.7, np.nan)}, "two voxel sizes"),
        ({"codes": (0, 1), "pixdim": (2.5, 0.7, 0.7)}, "two voxel sizes"),
        ({"qform": moved(oblique(), 20, 0, 0)}, "differ by up to 20 mm"),
        ({"qform": oblique(degrees=25)}, "differ by up to"),
        ({"qform": oblique() @ np.diag([-1, 1, 1, 1])}, "differ by up to"),
        ({"codes": (1, 4), "qform": oblique() @ np.diag([-1, -1, 1, 1])}, "direction of their"),
        ({"quatern_b": 0.9, "quatern_c": 0.9, "quatern_d": 0.9}, "no rotation"),
        ({"codes": (1, 0), "quatern_b": 0.9, "quatern_c": 0.9}, "no rotation"),
        ({"sform": oblique((0.7, 0.7, 25))}, "0.7 × 0.7 × 25 mm"),
        ({"sform": oblique((0.05, 0.7, 2))}, "0.05 × 0.7 × 2 mm"),
        ({"units": "meter"}, "700 × 700 × 2500 mm"),
        ({"units": "micron"}, "0.0007 × 0.0007 × 0.0025 mm"),
    ],
)
def test_statements_that_differ_are_refused(tmp_path, header, words):
    reason, detail = refused(write(tmp_path / "a.nii", **header))
    assert reason == "geometry_inconsistent"
    assert words in detail


@pytest.mark.parametrize(("units", "per_mm"), [("meter", 0.001), ("micron", 1000), ("mm", 1)])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1)])
def test_other_units_become_mm(tmp_path, units, per_mm, codes):
    scale = np.diag([per_mm] * 3 + [1])
    path = write(tmp_path / "a.nii", sform=scale @ oblique(), units=units, codes=codes)
    expected = load_volume(write(tmp_path / "mm.nii"))
    volume = load_volume(path)
    np.testing.assert_allclose(volume.affine, expected.affine, rtol=1e-4, atol=1e-3)
    assert volume.stored_affine is not None
    np.testing.assert_allclose(volume.stored_affine, oblique(), rtol=1e-4, atol=1e-3)
    assert describe_image(path).spacing_mm == pytest.approx(volume.spacing_xyz_mm)
    labels, affine = read_label_ids(path)
    np.testing.assert_array_equal(affine, volume.affine)
    np.testing.assert_array_equal(labels, volume.hu)
