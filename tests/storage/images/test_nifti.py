import gzip
import tempfile
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from storage.images.loading import describe_image, load_volume
from storage.images.types import ImageError
from storage.images.volume_files import read_label_ids


def save(path, voxels, affine=None, *, codes=(1, 1), image_class=nib.Nifti1Image):
    image = image_class(voxels, np.eye(4) if affine is None else affine)
    image.set_qform(image.affine, code=codes[0], strip_shears=True)
    image.set_sform(image.affine, code=codes[1])
    nib.save(image, path)
    return path


@st.composite
def affines(draw):
    """Any axis order and direction, oblique by up to 40 degrees, with shear as of a gantry."""
    turn = Rotation.from_euler(
        "xyz", draw(st.tuples(*[st.floats(-40, 40)] * 3)), degrees=True
    ).as_matrix()
    axes = np.eye(3)[list(draw(st.permutations(range(3))))]
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    shear = np.eye(3)
    shear[1, 2] = draw(st.floats(-0.3, 0.3))
    spacing = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = turn @ shear @ (axes * signs) * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-400, 400)] * 3))
    return affine


@settings(max_examples=60, deadline=None)
@given(affines(), st.tuples(*[st.integers(1, 5)] * 3), st.sampled_from([".nii", ".nii.gz"]))
def test_every_voxel_keeps_its_place_in_the_patient(affine, shape, suffix):
    names = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder) / f"a{suffix}", names, affine)
        volume = load_volume(path)
        description = describe_image(path)
    places = apply_affine(volume.affine, np.argwhere(np.ones(volume.hu.shape)))
    truth = apply_affine(affine, np.argwhere(np.ones(shape)))
    assert np.allclose(places[np.argsort(volume.hu.ravel())], truth, atol=1e-3)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert volume.hu.flags.c_contiguous
    assert description.shape == volume.hu.shape
    assert description.spacing_mm is not None
    assert np.allclose(description.spacing_mm, volume.spacing_xyz_mm)


@pytest.mark.parametrize(
    "name",
    [
        "chest_ct/cxr.nii.gz",
        "totalsegmentator/thorax_ct.nii.gz",
        "totalsegmentator/heart_ct.nii.gz",
        "totalsegmentator/abdomen_ct.nii.gz",
    ],
)
def test_real_volumes_agree_with_nibabel(real_input, name):
    path = real_input(name)
    volume = load_volume(path)
    truth = nib.as_closest_canonical(nib.load(path))
    assert volume.hu.dtype == np.int16
    assert np.array_equal(volume.hu, truth.dataobj)
    assert np.array_equal(volume.affine, truth.affine)
    description = describe_image(path)
    assert (description.shape, description.spacing_mm) == (volume.hu.shape, volume.spacing_xyz_mm)


def test_padding_outside_the_field_of_view_stays(real_input):
    assert load_volume(real_input("chest_ct/cxr.nii.gz")).hu.min() == -2048


def test_full_size_ct_takes_less_than_400_mb(real_input):
    path = real_input("chest_ct/cxr.nii.gz")
    tracemalloc.start()
    try:
        load_volume(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400e6


def test_values_are_rounded_and_clipped(tmp_path):
    values = np.array([-1e6, -2048, -0.6, 0.4, 0.6, 1e6, np.nan, np.inf], np.float32)
    volume = load_volume(save(tmp_path / "a.nii.gz", values.reshape(8, 1, 1)))
    assert volume.hu.ravel().tolist() == [-32768, -2048, -1, 0, 1, 32767, -2048, 32767]


def test_scale_of_the_header_is_applied(tmp_path):
    stored = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(2, -1000)
    nib.save(image, tmp_path / "a.nii")
    assert np.array_equal(load_volume(tmp_path / "a.nii").hu, stored * 2.0 - 1000)


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_of_the_format(tmp_path, image_class):
    voxels = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    path = save(tmp_path / "a.nii.gz", voxels, image_class=image_class)
    assert np.array_equal(load_volume(path).hu, voxels)


def test_fourth_axis_of_one_frame_is_dropped(tmp_path):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1)
    assert np.array_equal(load_volume(save(tmp_path / "a.nii", voxels)).hu, voxels[..., 0])


@pytest.mark.parametrize("shape", [(3, 3), (3, 3, 3, 2)])
def test_other_numbers_of_axes_are_unsupported(tmp_path, shape):
    path = save(tmp_path / "a.nii.gz", np.zeros(shape, np.int16))
    with pytest.raises(ImageError, match="three-dimensional") as caught:
        load_volume(path)
    assert caught.value.reason == "image_unsupported"


def test_colours_are_unsupported(tmp_path):
    colours = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ImageError, match="colours") as caught:
        load_volume(save(tmp_path / "a.nii.gz", colours))
    assert caught.value.reason == "image_unsupported"


def flattened():
    affine = np.eye(4)
    affine[:, 2] = affine[:, 1]
    return affine


@pytest.mark.parametrize(
    ("affine", "codes"),
    [
        (np.eye(4), (0, 0)),
        (flattened(), (0, 1)),
        (np.diag([1, 0, 1, 1]), (0, 1)),
        (np.diag([1, np.nan, 1, 1]), (0, 1)),
        (np.diag([1, 1, np.inf, 1]), (0, 1)),
    ],
)
def test_missing_geometry(tmp_path, affine, codes):
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header["qform_code"], image.header["sform_code"] = codes
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = affine[row]
    raw = bytearray(image.to_bytes())
    raw[:348] = image.header.binaryblock
    raw[252:256] = np.array(codes, "<i2").tobytes()
    raw[280:328] = np.asarray(affine[:3], "<f4").tobytes()
    path = tmp_path / "a.nii"
    path.write_bytes(raw)
    for use in (load_volume, describe_image):
        with pytest.raises(ImageError) as caught:
            use(path)
        assert caught.value.reason == "geometry_missing"
        assert str(path) in caught.value.detail


def test_damage_that_only_the_checksum_shows_is_found(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.zeros((9, 9, 9), np.int16))
    raw = bytearray(gzip.compress(gzip.decompress(path.read_bytes())))
    raw[-8] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ImageError) as caught:
        load_volume(path)
    assert caught.value.reason == "image_unreadable"


@pytest.mark.parametrize("dtype", [">i2", "<u2", "u1", "i1", "<i8", ">f8", "<u4", "<f4"])
def test_other_kinds_of_numbers(tmp_path, dtype):
    voxels = np.arange(24).reshape(2, 3, 4).astype(dtype)
    header = nib.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else None)
    header.set_data_dtype(voxels.dtype)
    image = nib.Nifti1Image(voxels, np.eye(4), header, dtype=voxels.dtype)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.array_equal(load_volume(tmp_path / "a.nii.gz").hu, voxels)


@pytest.mark.parametrize("slope", [0, np.nan, np.inf])
def test_a_slope_that_scales_nothing_is_none(tmp_path, slope):
    path = save(tmp_path / "a.nii", np.arange(8, dtype=np.int16).reshape(2, 2, 2))
    assert np.array_equal(load_volume(patched(path, "scl_slope", slope)).hu.ravel(), range(8))


def patched(path, field, value):
    """Set a field of the header behind the back of the library, which would check it."""
    raw = bytearray(path.read_bytes())
    fields = nib.Nifti1Header.template_dtype.fields
    assert fields is not None
    dtype, offset = fields[field][:2]
    content = np.full(dtype.shape, value, dtype.base) if dtype.shape else np.array(value, dtype)
    raw[offset : offset + dtype.itemsize] = content.tobytes()
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("dim", [3, -2, 2, 2, 1, 1, 1, 1], "image_unsupported"),
        ("dim", [3, 0, 2, 2, 1, 1, 1, 1], "image_unsupported"),
        ("dim", [3, 32767, 32767, 32767, 1, 1, 1, 1], "too_large"),
        ("dim", [3, 1000, 1000, 1000, 1, 1, 1, 1], "image_unreadable"),
        ("dim", [3, 2, 2, 1, 1, 1, 1, 1], "image_unreadable"),
        ("dim", [9, 2, 2, 2, 1, 1, 1, 1], "image_unreadable"),
        ("dim", [4, 2, 2, 1, 2, 1, 1, 1], "image_unsupported"),
        ("datatype", 999, "image_unreadable"),
        ("datatype", 32, "image_unsupported"),
        ("datatype", 64, "image_unreadable"),
        ("vox_offset", 1e9, "image_unreadable"),
        ("vox_offset", -16, "image_unreadable"),
        ("vox_offset", np.nan, "image_unreadable"),
        ("scl_inter", np.inf, "image_unreadable"),
        ("magic", b"ni1", "image_unsupported"),
        ("magic", b"xyz", "image_unreadable"),
    ],
)
def test_headers_that_lie(tmp_path, field, value, reason):
    path = save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.int16))
    patched(patched(path, "scl_slope", 1), field, value)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError) as caught:
            load_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 3e9  # of which none is touched
    finally:
        tracemalloc.stop()
    assert caught.value.reason == reason


@pytest.mark.parametrize("extra", [b"\0" * 3, b"\0" * 4096])
def test_what_follows_the_voxels(tmp_path, extra):
    """Less than a plane is padding; more means that the header does not count all voxels."""
    path = save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.int16))
    path.write_bytes(gzip.compress(path.read_bytes() + extra))
    if len(extra) < 8:
        assert load_volume(path).hu.shape == (2, 2, 2)
    else:
        with pytest.raises(ImageError, match="holds more than the 2 × 2 × 2 voxels"):
            load_volume(path)


def test_half_of_a_pair(tmp_path):
    nib.save(nib.Nifti1Pair(np.zeros((2, 2, 2), np.int16), np.eye(4)), tmp_path / "a.img")
    with pytest.raises(ImageError, match="one half of a"):
        load_volume(tmp_path / "a.hdr")
    with pytest.raises(ImageError) as caught:
        load_volume(tmp_path / "a.img")
    assert caught.value.reason == "image_unreadable"


@pytest.mark.parametrize("values", [[0.5, 1, 2], [-1, 0, 1], [0, 1, 70000]])
def test_values_that_are_no_labels(tmp_path, values):
    path = save(tmp_path / "a.nii", np.array(values, np.float32).reshape(3, 1, 1))
    with pytest.raises(ImageError, match="no label map"):
        read_label_ids(path)
