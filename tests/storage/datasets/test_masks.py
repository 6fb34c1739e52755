"""The family `masks`: what its layout says of files, and what it makes of broken ones."""

from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from storage.datasets import registry
from storage.datasets.declaration import read_declaration
from storage.datasets.reader import DatasetError, Study
from storage.images.loading import load_volume
from storage.rejects import Reject
from tests.storage.datasets.declared_trees import AFFINE, SHAPE
from tests.storage.images.volume_writers import write_volume

IMAGES = [{"path": "{case}/ct.nii.gz", "modality": "CT"}]
MASK = {"path": "{case}/seg.nii.gz", "values": {"liver": 1, "tumor": "2-4"}}
PART = {"images": IMAGES, "masks": [MASK]}


def open_own(folder, *parts, **layout):
    declared = {
        "title": "Livers",
        "licence": "local",
        "access": "local",
        "citation": "none",
        "source": "own",
        "splits": ["train", "test"],
        "reports": False,
        "reader": "masks",
        "targets": {"liver": "liver", "tumor": "liver tumor"},
        "layout": {"parts": list(parts)} | layout,
    }
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(declared))
    return read_declaration(file).open(folder / "set")


def write(folder, name, ids=None, affine=AFFINE):
    voxels = np.zeros(SHAPE, np.int16) if ids is None else ids
    return write_volume(folder / "set" / name, voxels, affine)


def labels(*values):
    ids = np.zeros(SHAPE, np.uint8)
    for at, value in enumerate(values):
        ids[at, 1, 1:3] = value
    return ids


def read(reader) -> dict[str, Any]:
    return {r.study_id: r for r in reader.read(reader.records())}


def test_values_labels_and_absence(tmp_path) -> None:
    write(tmp_path, "a/ct.nii.gz")
    write(tmp_path, "a/seg.nii.gz", labels(1, 2, 4, 9))
    write(tmp_path, "b/ct.nii.gz")
    write(tmp_path, "b/seg.nii.gz", labels(1))
    found = read(open_own(tmp_path, PART))
    a, b = found["a"], found["b"]
    assert isinstance(a, Study)
    assert isinstance(b, Study)
    assert a.gold is not None
    assert b.gold is not None
    assert [(m.label, m.mask.voxel_count) for m in a.gold.masks] == [("liver", 2), ("tumor", 4)]
    assert [(x.reason, x.detail) for x in a.left_out] == [
        ("label_unknown", "seg.nii.gz has the values 9 (2 voxels), which mean nothing")
    ]
    assert [(m.target, m.mask.voxel_count) for m in b.gold.masks] == [
        ("liver", 2),
        ("liver tumor", 0),
    ]
    empty = b.gold.masks[1].mask
    assert empty.shape == SHAPE
    assert not empty.voxels.any()


def test_instances_and_several_files_of_one_label(tmp_path) -> None:
    write(tmp_path, "a/ct.nii.gz")
    write(tmp_path, "a/seg.nii.gz", labels(3, 1))
    write(tmp_path, "a/seg_1.nii.gz", labels(0, 0, 7))
    masks = {"path": "{case}/seg*.nii.gz", "rest": "tumor", "instances": True}
    (study,) = read(open_own(tmp_path, {"images": IMAGES, "masks": [masks]})).values()
    assert isinstance(study, Study)
    assert study.gold is not None
    assert [(m.instance, np.argwhere(m.mask.voxels).shape[0]) for m in study.gold.masks] == [
        (0, 2),
        (1, 2),
        (2, 2),
    ]


def test_a_grid_that_differs_is_rejected_unless_it_is_declared(tmp_path) -> None:
    flipped = AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])
    flipped[:3, 3] = (AFFINE @ (0, 0, SHAPE[2] - 1, 1))[:3]
    moved = AFFINE + np.eye(4, k=3)
    crop = AFFINE.copy()
    crop[:3, 3] = (AFFINE @ (2, 1, 0, 1))[:3]
    small = np.ones((3, 2, 2), np.uint8)
    for case, ids, affine in (
        ("same", labels(1)[:, :, ::-1], flipped),
        ("moved", labels(1), moved),
        ("crop", small, crop),
        ("beyond", small, np.diag([3.0, 3.0, 3.0, 1.0])),
    ):
        write(tmp_path, f"{case}/ct.nii.gz")
        write(tmp_path, f"{case}/seg.nii.gz", ids, affine)
    strict = read(open_own(tmp_path, PART))
    assert {k: r.reason for k, r in strict.items() if isinstance(r, Reject)} == dict.fromkeys(
        ("moved", "crop", "beyond"), "grids_differ"
    )
    lenient = {"images": IMAGES, "masks": [MASK | {"part": True, "misplaced": "moved"}]}
    found = read(open_own(tmp_path, lenient))
    assert {k: r.reason for k, r in found.items() if isinstance(r, Reject)} == {
        "beyond": "grids_differ"
    }
    same, crop_of, moved_of = (
        found[k].gold.masks[0].mask.voxels for k in ("same", "crop", "moved")
    )
    np.testing.assert_array_equal(same, moved_of)
    assert crop_of.sum() == 12
    # The file's first axis runs to the left: its voxels 2 to 4 are x 2 to 4 of 7 the other way.
    assert {tuple(i) for i in np.argwhere(crop_of)} == {
        (x, y, z) for x in (2, 3, 4) for y in (1, 2) for z in (0, 1)
    }


def test_pictures_that_hold_colours_or_other_sizes_are_rejected(tmp_path) -> None:
    part = {
        "images": [{"path": "{case}.png", "modality": "US"}],
        "masks": [{"path": "{case}_mask.png", "rest": "tumor"}],
    }
    (tmp_path / "set").mkdir()
    grey = np.zeros((6, 8), np.uint8)
    grey[2, 3] = 255
    for case, mask in (
        ("grey", grey),
        ("equal", np.dstack([grey] * 3 + [255 - grey])),
        ("red", np.dstack([grey, grey * 0, grey * 0])),
        ("small", grey[1:]),
    ):
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "set" / f"{case}.png")
        Image.fromarray(mask).save(tmp_path / "set" / f"{case}_mask.png")
    found = read(open_own(tmp_path, part))
    assert found["red"].reason == "image_unsupported"
    assert found["small"].reason == "grids_differ"
    for case in ("grey", "equal"):
        (mask,) = found[case].gold.masks
        assert np.argwhere(mask.mask.voxels).tolist() == [[2, 3]]
        assert mask.mask.affine is None


def test_masks_of_another_download_say_which(tmp_path) -> None:
    write(tmp_path, "a/seg.nii.gz", labels(1))
    write(tmp_path, "b/ct.nii.gz")
    write(tmp_path, "c/ct.nii.gz")
    write(tmp_path, "c/seg.nii.gz", labels(1))
    write(tmp_path, "d/ct.nii.gz")
    write(tmp_path, "d/seg.nii.gz", labels(1))
    part = PART | {"download": "MSD Liver", "exclude": "d", "split": "test"}
    found = read(open_own(tmp_path, part))
    assert found["a"].reason == "image_not_found"
    assert "its image is part of MSD Liver" in found["a"].detail
    assert found["b"].reason == "mask_not_found"
    assert found.keys() == {"a", "b", "c"}


def test_one_case_in_two_places_is_no_study(tmp_path) -> None:
    images = [{"path": "*/{case}.nii.gz", "modality": "CT"}]
    for folder in ("one", "two"):
        write(tmp_path, f"{folder}/a.nii.gz")
        write(tmp_path, f"{folder}/a/seg.nii.gz", labels(1))
    part = {"images": images, "masks": [MASK | {"path": "*/{case}/seg.nii.gz"}]}
    (reject,) = read(open_own(tmp_path, part)).values()
    assert reject.reason == "case_ambiguous"


def test_totalsegmentator_tolerates_missing_files_and_tells_of_unknown_ones(tmp_path) -> None:
    for case in ("s0001", "s0002", "s0003"):
        write(tmp_path, f"{case}/ct.nii.gz")
    write(tmp_path, "s0001/segmentations/liver.nii.gz", labels(1))
    write(tmp_path, "s0001/segmentations/spleen.nii.gz", labels())
    write(tmp_path, "s0001/segmentations/face.nii.gz", labels(1))
    write(tmp_path, "s0003/segmentations/liver.nii.gz", labels(1))
    write(tmp_path, "s0004/segmentations/liver.nii.gz", labels(1))
    table = tmp_path / "set" / "meta.csv"
    table.write_bytes("\ufeffimage_id;age;split\ns0001;64;val\ns0002;5;train\n".encode())
    reader = registry.find_declaration("totalsegmentator").open(tmp_path / "set")
    records = {record.key: record for record in reader.records()}
    assert records["s0001"].split == "validate"
    found: dict[str, Any] = {r.study_id: r for r in reader.read(records.values())}
    study = found["s0001"]
    assert isinstance(study, Study)
    assert study.gold is not None
    assert [(m.target, m.mask.voxel_count) for m in study.gold.masks] == [
        ("spleen", 0),
        ("liver", 2),
    ]
    assert sorted(left.reason for left in study.left_out) == ["label_unknown", "mask_not_found"]
    assert found["s0002"].reason == "mask_not_found"
    assert found["s0003"].reason == "split_unknown"
    assert found["s0004"].reason == "image_not_found"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (PART | {"masks": [{"path": "x.nii"}]}, "say what its values mean"),
        (PART | {"images": [{"path": "../x", "modality": "CT"}]}, "below the data set's folder"),
        (PART | {"images": [{"path": "{case:(}.nii", "modality": "CT"}]}, "is no pattern"),
        (PART | {"masks": [MASK | {"values": {"cyst": 1}}]}, "targets: cyst is missing"),
    ],
)
def test_a_fault_of_the_layout_is_one_sentence(tmp_path, part, words) -> None:
    write(tmp_path, "a/ct.nii.gz")
    with pytest.raises(DatasetError, match=words):
        list(open_own(tmp_path, part).records())


def test_images_without_masks_may_have_their_own_grid_or_be_broken(tmp_path) -> None:
    moved = np.diag([2.0, 2.0, 2.0, 1.0])
    for case in ("a", "b"):
        write(tmp_path, f"{case}/ct.nii.gz")
        write(tmp_path, f"{case}/seg.nii.gz", labels(1))
        write(tmp_path, f"{case}/mr.nii.gz", affine=moved)
    (tmp_path / "set" / "b" / "mr.nii.gz").write_bytes(b"no image")
    mr = {"path": "{case}/mr.nii.gz", "modality": "MR", "name": "mr"}
    apart = read(open_own(tmp_path, PART | {"images": [*IMAGES, mr | {"own_grid": True}]}))
    assert [[i.modality for i in apart[c].images] for c in "ab"] == [["CT", "MR"], ["CT"]]
    assert [[r.reason for r in apart[c].left_out] for c in "ab"] == [[], ["image_unreadable"]]
    same = read(open_own(tmp_path, PART | {"images": [*IMAGES, mr]}))
    assert [r.reason for r in same["a"].left_out] == ["grids_differ"]


def test_a_folder_of_something_else_is_told(tmp_path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DatasetError, match="holds no cases of own"):
        list(open_own(tmp_path, PART).records())


def test_real_masks_lie_on_their_real_ct(tmp_path, real_input) -> None:
    """That of the aorta has a part of the grid of the CT, which its data set may declare."""
    folder = tmp_path / "set" / "s0001" / "segmentations"
    folder.mkdir(parents=True)
    ct = folder.parent / "ct.nii.gz"
    ct.symlink_to(real_input("totalsegmentator/thorax_ct.nii.gz"))
    (folder / "heart.nii.gz").symlink_to(real_input("totalsegmentator/heart_heart.nii.gz"))
    (folder / "aorta.nii.gz").symlink_to(real_input("totalsegmentator/thorax_aorta.nii.gz"))
    (tmp_path / "set" / "meta.csv").write_text("image_id;split\ns0001;train\n")
    reader = registry.find_declaration("totalsegmentator").open(tmp_path / "set")
    (study,) = reader.read(reader.records())
    assert isinstance(study, Study), study
    assert study.gold is not None
    (heart,) = study.gold.masks
    assert heart.target == "heart"
    assert {left.reason for left in study.left_out} == {"grids_differ", "mask_not_found"}
    masks = {"path": "{case}/segmentations/aorta.nii.gz", "rest": "liver", "part": True}
    (study,) = read(open_own(tmp_path, {"images": IMAGES, "masks": [masks]})).values()
    assert isinstance(study, Study), study
    assert study.gold is not None
    (aorta,) = study.gold.masks
    hu = load_volume(ct).hu
    for mask in (heart.mask, aorta.mask):
        assert mask.voxel_count > 10_000
        blood = mask.voxels
        assert hu[blood].mean() - hu[blood[::-1]].mean() > 100  # mirrored, it hits lung too
