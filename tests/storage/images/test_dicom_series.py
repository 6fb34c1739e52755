import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from pydicom.uid import generate_uid
from scipy.spatial.transform import Rotation

from storage.images.loading import describe_image, load_volume
from storage.images.types import ImageError
from tests.storage.images.dicom_files import decimals, write_ct_slice

SLICE = np.arange(6, dtype=np.int16).reshape(2, 3)


def write_stack(folder, depths_mm, **elements):
    """Axial slices at these z, named in the order given."""
    folder.mkdir(exist_ok=True)
    for index, z in enumerate(depths_mm):
        write_ct_slice(folder / f"{index:03}.dcm", SLICE + 10 * index, (0, 0, z), **elements)
    return folder


def refused(folder):
    """The reason and sentence with which both functions refuse the folder."""
    errors = []
    for use in (load_volume, describe_image):
        with pytest.raises(ImageError) as caught:
            use(folder)
        errors.append((caught.value.reason, caught.value.detail))
    assert errors[0] == errors[1]
    assert str(folder) in errors[0][1]
    return errors[0]


@st.composite
def stacks(draw):
    """Direction cosines, spacing, first position and step of a series; the step may be sheared."""
    turn = Rotation.from_euler(
        "xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True
    ).as_matrix()
    step = turn @ [0, draw(st.sampled_from([0, 0, 0.4])), draw(st.sampled_from([-1, 1]))]
    return (
        turn[:, 0],
        turn[:, 1],
        draw(st.tuples(*[st.floats(0.3, 2)] * 2)),
        np.array(draw(st.tuples(*[st.floats(-400, 400)] * 3))),
        step * draw(st.floats(0.6, 5)),
    )


@settings(max_examples=40, deadline=None)
@given(stacks(), st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 5)), st.randoms())
def test_every_pixel_lands_at_its_place_in_the_patient(stack, shape, shuffler):
    row_direction, column_direction, (row_gap, column_gap), first, step = stack
    rows, columns, count = shape
    names = np.arange(rows * columns * count, dtype=np.int16).reshape(count, rows, columns)
    files = list(range(count))
    shuffler.shuffle(files)
    truth_ras = {}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            position = first + index * step
            write_ct_slice(
                Path(folder) / f"{files[index]}",
                names[index],
                position,
                ImageOrientationPatient=decimals(*row_direction, *column_direction),
                PixelSpacing=decimals(row_gap, column_gap),
            )
            for row, column in np.ndindex(rows, columns):
                x, y, z = (
                    position
                    + column * column_gap * row_direction
                    + row * row_gap * column_direction
                )
                truth_ras[int(names[index, row, column])] = (-x, -y, z)
        volume = load_volume(Path(folder))
        description = describe_image(Path(folder))
    places = apply_affine(volume.affine, np.argwhere(np.ones(volume.hu.shape)))
    expected = [truth_ras[name] for name in volume.hu.astype(int).ravel().tolist()]
    assert np.allclose(places, expected, atol=1e-3)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert volume.hu.flags.c_contiguous
    assert description.shape == volume.hu.shape
    assert description.spacing_mm is not None
    assert np.allclose(description.spacing_mm, volume.spacing_xyz_mm)


def test_real_series_does_not_depend_on_file_names(real_input, tmp_path):
    folder = real_input("totalsegmentator/example_ct_dicom")
    volume = load_volume(folder)
    assert volume.hu.shape == (512, 512, 20)
    assert volume.spacing_xyz_mm == (0.9765625, 0.9765625, 2.0)
    for index, file in enumerate(np.random.default_rng(0).permutation(sorted(folder.iterdir()))):
        shutil.copy(file, tmp_path / f"{index:02}")
    again = load_volume(tmp_path)
    assert np.array_equal(again.hu, volume.hu)
    assert np.array_equal(again.affine, volume.affine)


def test_real_series_is_hounsfield_units_at_the_positions_of_its_headers(real_input):
    folder = real_input("totalsegmentator/example_ct_dicom")
    volume = load_volume(folder)
    dataset = pydicom.dcmread(sorted(folder.iterdir())[7])
    x, y, z = dataset.ImagePositionPatient
    inverse = np.linalg.inv(volume.affine)
    for row, column in [(0, 0), (256, 256), (300, 140)]:
        place = (-(x + column * 0.9765625), -(y + row * 0.9765625), z)
        i, j, k = np.rint(apply_affine(inverse, place)).astype(int)
        assert volume.hu[i, j, k] == int(dataset.pixel_array[row, column]) - 1024


def test_real_series_with_a_slice_missing(real_input, tmp_path):
    files = sorted(real_input("totalsegmentator/example_ct_dicom").iterdir())
    for file in files[:9] + files[10:]:
        shutil.copy(file, tmp_path)
    reason, detail = refused(tmp_path)
    assert reason == "series_incomplete"
    assert files[8].name in detail
    assert files[10].name in detail
    assert "4 mm" in detail
    assert "InstanceNumber 1 lie between" in detail


def test_rescale_of_each_slice_is_its_own(tmp_path):
    write_ct_slice(tmp_path / "a", SLICE, (0, 0, 0), RescaleSlope=2, RescaleIntercept=-1000)
    write_ct_slice(tmp_path / "b", SLICE, (0, 0, 1), RescaleSlope=0.5, RescaleIntercept=0)
    hu = load_volume(tmp_path).hu
    assert sorted(hu[:, :, 0].ravel()) == [-1000, -998, -996, -994, -992, -990]
    assert sorted(hu[:, :, 1].ravel()) == [0, 0, 1, 2, 2, 2]  # halves go to the even number


def test_single_slice_takes_its_thickness(tmp_path):
    write_ct_slice(tmp_path / "a", SLICE, SliceThickness=3)
    assert load_volume(tmp_path).spacing_xyz_mm == (0.5, 0.5, 3)


def test_single_slice_without_thickness_has_no_geometry(tmp_path):
    write_ct_slice(tmp_path / "a", SLICE)
    assert refused(tmp_path)[0] == "geometry_missing"


def test_positions_rounded_by_the_scanner_are_accepted(tmp_path):
    folder = write_stack(tmp_path, [round(index * 0.625, 1) for index in range(30)])
    assert load_volume(folder).spacing_xyz_mm[2] == pytest.approx(0.625, abs=0.01)


@pytest.mark.parametrize(
    ("depths_mm", "words"),
    [
        ([0, 1, 2, 2, 3], "002.dcm and 003.dcm"),
        ([0, 0], "000.dcm and 001.dcm"),
        ([0, 1, 2, 4, 5], "2 mm between 002.dcm and 003.dcm, elsewhere 1 mm"),
        ([0, 5, 6, 7, 8], "5 mm between 000.dcm and 001.dcm, elsewhere 1 mm"),
    ],
)
def test_uneven_stacks_are_refused(tmp_path, depths_mm, words):
    reason, detail = refused(write_stack(tmp_path, depths_mm))
    assert reason == "image_unsupported"
    assert words in detail


def test_slice_shifted_sideways_is_refused(tmp_path):
    write_stack(tmp_path, range(5))
    write_ct_slice(tmp_path / "002.dcm", SLICE, (40, 0, 2))
    assert "unequal steps" in refused(tmp_path)[1]


@pytest.mark.parametrize(
    ("elements", "reason", "words"),
    [
        ({"SeriesInstanceUID": generate_uid()}, "image_unsupported", "2 series"),
        (
            {"ImageOrientationPatient": decimals(0.8, 0.6, 0, -0.6, 0.8, 0)},
            "image_unsupported",
            "orientation",
        ),
        ({"PixelSpacing": decimals(0.5, 0.6)}, "image_unsupported", "pixel spacing"),
        ({"RescaleType": "MGML"}, "not_hounsfield", "RescaleType MGML"),
        ({"RescaleSlope": 0}, "not_hounsfield", "RescaleSlope 0"),
        ({"NumberOfFrames": 3}, "image_unsupported", "3 frames"),
        ({"ImagePositionPatient": None}, "geometry_missing", "ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "geometry_missing", "ImageOrientationPatient"),
        ({"PixelSpacing": decimals(0, 0)}, "geometry_missing", "PixelSpacing"),
        (
            {"ImageOrientationPatient": decimals(1, 0, 0, 1, 0, 0)},
            "geometry_missing",
            "right angle",
        ),
    ],
)
def test_one_odd_slice_is_refused(tmp_path, elements, reason, words):
    write_stack(tmp_path, range(4))
    write_ct_slice(tmp_path / "004.dcm", SLICE, **{"position": (0, 0, 4), **elements})
    assert refused(tmp_path)[0] == reason
    assert words in refused(tmp_path)[1]


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_values_without_rescale_are_not_hounsfield_units(tmp_path, keyword):
    with pytest.raises(ImageError, match="not Hounsfield units"):
        load_volume(write_stack(tmp_path, range(3), **{keyword: None}))


def test_what_archives_put_beside_the_images_is_left_out(tmp_path):
    write_stack(tmp_path, range(3))
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "LICENSE").write_text("a note")
    (tmp_path / "other").mkdir()
    assert load_volume(tmp_path).hu.shape == (3, 2, 3)


@pytest.mark.parametrize("content", [b"", b"not DICOM"])
def test_damaged_slice_does_not_pass_as_a_note(tmp_path, content):
    write_stack(tmp_path, range(3))
    (tmp_path / "003.dcm").write_bytes(content)
    assert refused(tmp_path)[0] == "image_unreadable"


@pytest.mark.parametrize("files", [{}, {"note.txt": "text"}])
def test_folder_without_dicom(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    reason, detail = refused(tmp_path)
    assert reason == "image_unreadable"
    assert "no DICOM file" in detail
