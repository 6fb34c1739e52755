"""The family `nnunet`: versions 1 and 2, MSD, and their broken members."""

import json

import numpy as np
import pytest
import yaml

from storage.datasets.declaration import read_declaration
from storage.datasets.reader import DatasetError, Study
from storage.images.loading import load_volume
from storage.rejects import Reject
from tests.storage.datasets.declared_trees import AFFINE, SHAPE
from tests.storage.images.volume_writers import write_volume

V2 = {
    "channel_names": {"0": "T2", "1": "ADC"},
    "labels": {"background": 0, "prostate": [1, 2], "cancer": 2, "ignore": 3},
    "numTraining": 1,
    "file_ending": ".mha",
    "regions_class_order": [1, 2],
}


def open_own(folder, **changed):
    declared = {
        "title": "Prostates",
        "licence": "local",
        "access": "local",
        "citation": "none",
        "source": "own",
        "splits": ["train"],
        "modalities": ["MR"],
        "reports": False,
        "reader": "nnunet",
        "targets": {"prostate": "prostate", "cancer": "prostate cancer"},
    } | changed
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(declared))
    return read_declaration(file).open(folder / "Dataset500_Own")


def write(folder, said, case="p_1", channels=(0, 1), ending=".mha", affine=AFFINE):
    root = folder / "Dataset500_Own"
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(said))
    ids = np.zeros(SHAPE, np.uint8)
    ids[0, 0, :3] = 1, 2, 3
    write_volume(root / "labelsTr" / f"{case}{ending}", ids, affine)
    for channel in channels:
        image = np.zeros(SHAPE, np.int16)
        write_volume(root / "imagesTr" / f"{case}_{channel:04}{ending}", image, AFFINE)
    return root


def studies(reader):
    return {r.study_id: r for r in reader.read(reader.records())}


def test_version_2_with_regions_channels_and_an_ignore_label(tmp_path) -> None:
    root = write(tmp_path, V2)
    write(tmp_path, V2, "p_2", channels=(0,))
    write(tmp_path, V2, "p_3", channels=())
    write(tmp_path, V2, "p_4", affine=AFFINE + np.eye(4, k=3) * 0.2)
    write(tmp_path, V2, "p_5")
    (root / "labelsTr" / "p_5.mha").unlink()
    write(tmp_path, V2, "p_6", affine=AFFINE + np.eye(4, k=3) * 0.005)
    found = studies(open_own(tmp_path))
    assert {key: r.reason for key, r in found.items() if isinstance(r, Reject)} == {
        "p_2": "image_not_found",
        "p_3": "image_not_found",
        "p_4": "grids_differ",
        "p_5": "mask_not_found",
    }
    study = found["p_1"]
    assert isinstance(study, Study)
    assert [(i.image_id, i.modality) for i in study.images] == [("p_1_T2", "MR"), ("p_1_ADC", "MR")]
    assert study.gold is not None
    assert [(m.label, m.target, m.mask.voxel_count) for m in study.gold.masks] == [
        ("prostate", "prostate", 2),
        ("cancer", "prostate cancer", 1),
        ("ignore", None, 1),
    ]
    assert isinstance(found["p_6"], Study)


def test_version_1_has_channels_in_its_file_names_only(tmp_path) -> None:
    said = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "prostate", "2": "cancer"},
        "training": [{"image": "./imagesTr/p_1.nii.gz", "label": "./labelsTr/p_1.nii.gz"}],
    }
    write(tmp_path, said, channels=(0,), ending=".nii.gz")
    (study,) = studies(open_own(tmp_path)).values()
    assert isinstance(study, Study)
    assert study.images[0].image_id == "p_1"
    assert study.images[0].uri.endswith("imagesTr/p_1_0000.nii.gz")
    (left_out,) = study.left_out
    assert left_out.reason == "label_unknown"
    assert "the values 3 (1 voxels)" in left_out.detail


def test_cases_may_be_listed_with_their_paths(tmp_path) -> None:
    cases = {
        "a": {"images": ["raw/a.nii.gz"], "label": "raw/a_seg.nii.gz"},
        "b": {"images": ["../b.nii.gz"], "label": "raw/b_seg.nii.gz"},
    }
    said = V2 | {"channel_names": {"0": "CT"}, "dataset": cases, "file_ending": ".nii.gz"}
    root = write(tmp_path, said, channels=(), ending=".nii.gz")
    for name, dtype in (("a", np.int16), ("a_seg", np.float32)):
        write_volume(root / "raw" / f"{name}.nii.gz", np.zeros(SHAPE, dtype), AFFINE)
    found = studies(open_own(tmp_path))
    assert isinstance(found["a"], Study)
    assert found["b"].reason == "path_outside_source"


def test_channels_of_one_file_are_read_by_their_number(tmp_path) -> None:
    said = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "cancer"}}
    root = write(tmp_path, said, channels=(), ending=".nii.gz")
    both = np.zeros((*SHAPE, 2), np.float32)
    both[..., 1] = 0.25
    both[0, 0, 0, 1] = 0.5
    write_volume(root / "imagesTr" / "p_1.nii.gz", both, AFFINE)
    (study,) = studies(open_own(tmp_path)).values()
    assert isinstance(study, Study)
    adc = study.images[1]
    assert adc.uri.endswith("p_1.nii.gz#1")
    volume = load_volume(tmp_path / adc.uri, adc.modality or "")
    assert volume.modality == "MR"
    assert sorted(np.unique(volume.hu).tolist()) == [0.25, 0.5]
    assert volume.hu.shape == adc.shape


@pytest.mark.parametrize(
    ("said", "changed", "words"),
    [
        (V2 | {"labels": {"background": 0, "cyst": 1}}, {}, "targets: cyst is missing"),
        (V2 | {"labels": {}}, {}, "has no labels"),
        (V2 | {"channel_names": {}}, {}, "no channel_names and no modality"),
        (V2, {"layout": {"modalities": {"T2": "MR"}}}, "layout.modalities: ADC of dataset.json"),
        (V2, {"modalities": ["MR", "CT"]}, "name the one modality"),
        (V2 | {"dataset": {"a": {"label": "x"}}}, {}, "a case without image or label"),
        ([], {}, "no JSON object"),
    ],
)
def test_what_the_whole_set_lacks_is_one_sentence(tmp_path, said, changed, words) -> None:
    write(tmp_path, said)
    with pytest.raises(DatasetError, match=words):
        list(open_own(tmp_path, **changed).records())


def test_a_folder_without_dataset_json_is_told(tmp_path) -> None:
    (tmp_path / "Dataset500_Own").mkdir()
    with pytest.raises(DatasetError, match=r"expected dataset\.json, and found no such file"):
        list(open_own(tmp_path).records())


def test_a_damaged_label_file_rejects_one_case(tmp_path) -> None:
    root = write(tmp_path, V2 | {"file_ending": ".nii.gz"}, ending=".nii.gz")
    (root / "labelsTr" / "p_1.nii.gz").write_bytes(b"no volume")
    (reject,) = studies(open_own(tmp_path)).values()
    assert reject.reason == "image_unreadable"
