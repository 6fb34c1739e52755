"""NRRD and MetaImage files are read as the NIfTI file of the same volume is."""

import re

import numpy as np
import pytest

from storage.images.loading import describe_image, is_volume, load_volume
from storage.images.types import ImageError
from storage.images.volume_files import read_label_ids, stored_affine
from tests.storage.datasets.declared_trees import AFFINE, SHAPE
from tests.storage.images.volume_writers import write_metaimage, write_nrrd, write_volume

RNG = np.random.default_rng(5)
SIGNAL = RNG.integers(-900, 900, SHAPE, np.int16)
NAMES = ["v.nrrd", "v.seg.nrrd", "v.mha", "v.mhd"]


@pytest.mark.parametrize("name", NAMES)
def test_voxels_and_places_are_those_of_nifti(tmp_path, name) -> None:
    nifti = load_volume(write_volume(tmp_path / "v.nii.gz", SIGNAL, AFFINE))
    path = write_volume(tmp_path / name, SIGNAL, AFFINE)
    volume, said = load_volume(path, "MR"), describe_image(path, "MR")
    assert [str(v.hu.dtype) for v in (nifti, volume)] == ["int16", "float32"]
    assert is_volume(path)
    np.testing.assert_array_equal(volume.hu, nifti.hu)
    np.testing.assert_allclose(volume.affine, nifti.affine, atol=1e-4)
    np.testing.assert_allclose(stored_affine(path), AFFINE, atol=1e-4)
    assert (said.shape, said.modality, volume.modality) == (nifti.hu.shape, "MR", "MR")
    assert said.affine is not None
    np.testing.assert_allclose(said.affine, volume.affine, atol=1e-4)


def test_values_of_another_modality_than_ct_are_kept(tmp_path) -> None:
    uptake = RNG.uniform(0, 80_000, SHAPE).astype(np.float32)
    uptake[0, 0, :2] = 0.0015, np.nan
    volume = load_volume(write_volume(tmp_path / "pet.nii.gz", uptake, np.eye(4)), "PT")
    np.testing.assert_array_equal(volume.hu, np.nan_to_num(uptake))


def test_other_encodings_and_spaces(tmp_path) -> None:
    labels = np.abs(SIGNAL).astype(np.uint16)
    raw, ras = tmp_path / "raw.nrrd", tmp_path / "ras.nrrd"
    write_nrrd(raw, labels, AFFINE, encoding="raw")
    columns = " ".join("(" + ",".join(map(str, c)) + ")" for c in AFFINE[:3, :3].T)
    write_nrrd(
        ras,
        labels,
        AFFINE,
        space="RAS",
        **{"space directions": columns, "space origin": "(30,-40,55)"},
    )
    plain = tmp_path / "plain.mha"
    write_metaimage(plain, labels, AFFINE, compressed=False)
    expected, affine = read_label_ids(raw)
    for path in (ras, plain):
        ids, places = read_label_ids(path)
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(places, affine, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "fields", "reason", "words"),
    [
        ("v.nrrd", {"space": None}, "geometry_missing", "does not give its space"),
        ("v.nrrd", {"space origin": "(1,2)"}, "image_unreadable", "where 3 numbers belong"),
        ("v.nrrd", {"sizes": "7 6 5 2"}, "image_unsupported", "one three-dimensional volume"),
        ("v.nrrd", {"sizes": "7 6 50"}, "image_unreadable", "cut short"),
        ("v.nrrd", {"sizes": "70000 60000 50000"}, "too_large", "MAX_VOXELS"),
        ("v.nrrd", {"encoding": "ascii"}, "image_unsupported", "encoding ascii"),
        ("v.nrrd", {"type": "block"}, "image_unreadable", "type of numbers"),
        ("v.nrrd", {"data file": "../v.raw"}, "image_unsupported", "leads out of"),
        ("v.nrrd", {"data file": "v.raw"}, "image_not_found", "v.raw, which is not there"),
        ("v.mha", {"Offset": "nan 0 0"}, "geometry_missing", "not finite"),
        ("v.mha", {"DimSize": "7 6 50"}, "image_unreadable", "cut short"),
        ("v.mha", {"DimSize": "7 6 4"}, "image_unreadable", "more than"),
        ("v.mha", {"ElementNumberOfChannels": 3}, "image_unsupported", "3 channels"),
        ("v.mha", {"ElementDataFile": "LIST"}, "image_unsupported", "one file a slice"),
        ("v.mhd", {"ElementDataFile": "/etc/passwd"}, "image_unsupported", "leads out of"),
    ],
)
def test_broken_files_are_told_in_a_sentence(tmp_path, name, fields, reason, words) -> None:
    path = tmp_path / name
    write = write_nrrd if name.endswith("nrrd") else write_metaimage
    write(path, SIGNAL, AFFINE, **fields)
    with pytest.raises(ImageError, match=re.escape(words)) as caught:
        load_volume(path, "MR")
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_anywhere_is_told(tmp_path, name) -> None:
    path = write_volume(tmp_path / name, SIGNAL, AFFINE)
    part = path.with_suffix(".raw") if name == "v.mhd" else path
    whole = part.read_bytes()
    for length in (10, len(whole) // 3, len(whole) - 9):
        part.write_bytes(whole[:length])
        with pytest.raises(ImageError):
            load_volume(path, "MR")


def test_labels_must_be_whole_numbers(tmp_path) -> None:
    path = tmp_path / "v.nrrd"
    write_nrrd(path, np.full(SHAPE, 2.0002, np.float32), AFFINE)
    ids, _ = read_label_ids(path)
    assert (ids == 2).all()
    write_nrrd(path, np.full(SHAPE, 2.5, np.float32), AFFINE)
    with pytest.raises(ImageError, match="is no label map"):
        read_label_ids(path)
