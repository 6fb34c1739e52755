"""The grounded sets on small trees of their documented layouts, with their quirks."""

import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from storage.datasets.reader import DatasetError, Study
from storage.gold import Gold
from storage.records import Box
from tests.storage.datasets.trees import picture, read, reasons, write

DICOM = "0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d"


def gold(study: Study) -> Gold:
    assert study.gold is not None
    return study.gold


def ms_cxr_csv(folder: Path) -> str:
    path = f"files/p19/p19999991/s59999991/{DICOM}.jpg"
    write(
        folder,
        "MS_CXR_Local_Alignment_v1.1.0.csv",
        "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split",
        f"{DICOM},Pneumothorax,small left apical pneumothorax,{path},10,5,20,30,100,50,val",
        f"{DICOM},Pneumothorax,small left apical pneumothorax,{path},60,5,20,30,100,50,val",
        f"{DICOM},Edema,Edema is present.,{path},0,0,50,50,100,50,val",
        f"{DICOM},Edema,Edema is present.,{path},90,0,500,50,100,50,val",
        f"{DICOM},Mass,A mass.,{path},0,0,50,50,100,50,val",
    )
    return path


def test_ms_cxr_is_a_study_with_phrases_and_boxes(tmp_path: Path) -> None:
    path = ms_cxr_csv(tmp_path)
    studies, rejected = read("ms-cxr", tmp_path)
    assert list(studies) == ["validate/59999991"]
    assert not rejected
    study = studies["validate/59999991"]
    assert study.findings == "small left apical pneumothorax. Edema is present."
    assert (study.patient_id, study.images[0].shape) == ("19999991", (50, 100))
    phrases, boxes = gold(study).phrases, gold(study).boxes
    assert [(p.phrase_id, p.target) for p in phrases] == [
        ("0", "pneumothorax"), ("1", "pulmonary edema"),
    ]  # fmt: skip
    assert [(b.phrase_id, b.instance, b.box.x_min) for b in boxes] == [
        ("0", 0, 10), ("0", 1, 60), ("1", 0, 0),
    ]  # fmt: skip
    assert reasons(study.left_out) == ["box_outside_image", "label_not_declared"]
    # MIMIC-CXR's own split counts where its table is there; `files` may be the folder itself
    write(
        tmp_path,
        "mimic-cxr-2.0.0-split.csv",
        "dicom_id,study_id,subject_id,split",
        f"{DICOM},59999991,19999991,train",
    )
    picture(tmp_path, path.removeprefix("files/"))
    studies, _ = read("ms-cxr", tmp_path)
    assert "/files/" not in studies["train/59999991"].images[0].uri


def test_ms_cxr_0_1_comes_as_coco(tmp_path: Path) -> None:
    path = f"files/p19/p19999991/s59999991/{DICOM}.jpg"
    image = {"id": 7, "file_name": f"{DICOM}.jpg", "path": path, "width": 100, "height": 50}
    content = {
        "images": [image, image | {"id": 8}],
        "categories": [{"id": 1, "name": "Edema"}],
        "annotations": [
            {"image_id": n, "bbox": [1, 2, 3, 4], "category_id": 1, "label_text": "Edema"}
            for n in (7, 8)
        ],
    }
    file = write(tmp_path, "ms/MS_CXR_Local_Alignment_v1.0.0.json", json.dumps(content))
    studies, _ = read("ms-cxr", tmp_path)
    study = studies["test/59999991"]
    assert (len(gold(study).phrases), len(gold(study).boxes)) == (1, 2)
    assert gold(study).boxes[0].box == Box(1, 2, 4, 6, 1.0)
    file.write_text("{}")
    with pytest.raises(DatasetError, match="no COCO file"):
        read("ms-cxr", tmp_path)


def test_padchest_gr_places_fractions_on_the_image(tmp_path: Path) -> None:
    def study(number: str, *findings: dict[str, object]) -> dict[str, object]:
        return {"StudyID": number, "ImageID": f"{number}.png", "findings": findings}

    thickening = {
        "sentence_en": "Apical pleural thickening", "abnormal": True,
        "boxes": [[0.2, 0.1, 0.4, 0.5]], "extra_boxes": [[0.2, 0.1, 0.5, 0.5]],
        "labels": ["apical pleural thickening", "new sign"],
    }  # fmt: skip
    normal = {"sentence_en": "Normal heart.", "abnormal": False}
    long_id = "216840111366964012283393834152009027160348352"
    reports = [study(long_id, thickening, normal), study("2", thickening), study("2"), 7]
    reports.append(study("3", thickening))  # the table puts it in no split
    write(tmp_path, "grounded_reports_20240819.json", json.dumps(reports))
    write(
        tmp_path,
        "master_table.csv",
        "StudyID,ImageID,label,split,PatientID",
        f"{long_id},{long_id}.png,apical pleural thickening,validation,9",
        f"{long_id},{long_id}.png,new sign,validation,9",
        "2,2.png,new sign,test,8",
    )
    (tmp_path / "Padchest_GR_files").mkdir()
    parts = tmp_path / "Padchest_GR_files" / "PadChest_GR.zip.001"
    parts.touch()
    with pytest.raises(DatasetError, match=r"cat PadChest_GR.zip.\*"):
        read("padchest-gr", tmp_path)
    image = tmp_path / "PadChest_GR" / f"{long_id}.png"
    image.parent.mkdir()
    Image.fromarray(np.zeros((50, 100), np.uint16)).save(image)
    studies, rejected = read("padchest-gr", tmp_path)
    assert list(studies) == [f"validate/{long_id}", "test/2"]
    assert [(r.study_id, r.reason) for r in rejected] == [
        ("entry 3", "row_malformed"), ("entry 4", "row_malformed"), ("3", "split_unknown"),
    ]  # fmt: skip
    found = studies[f"validate/{long_id}"]
    assert found.findings == "Apical pleural thickening. Normal heart."
    assert [(p.phrase_id, p.label, p.target, p.assertion) for p in gold(found).phrases] == [
        ("0.0", "apical pleural thickening", "pleural thickening", "present"),
        ("0.1", "new sign", None, "present"),
        ("1.0", None, None, "absent"),
    ]
    first, second = gold(found).boxes[:2]
    assert (first.box, first.annotator) == (Box(20, 5, 40, 25, 1.0), "reader 1")
    assert (second.box, second.annotator, second.instance) == (
        Box(20, 5, 50, 25, 1.0), "reader 2", 1,
    )  # fmt: skip
    assert reasons(found.left_out) == ["label_not_declared"]
    unplaced = studies["test/2"]
    assert not gold(unplaced).boxes
    assert reasons(unplaced.left_out).count("image_not_found") == 4


def nifti(folder: Path, name: str, voxels: np.ndarray, affine: np.ndarray) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


LPS = np.diag([-0.7, -0.7, 2.0, 1.0])
"""Axes of CT-RATE's files: indices grow to the left and to the back."""


def test_rexgroundingct_masks_are_placed_by_voxel_index(tmp_path: Path) -> None:
    name = "train_99999_a_2.nii.gz"
    entry = {
        "name": name, "findings": {"0": "A nodule", "1": "Effusion on the left."},
        "entity_counts": {"0": 2, "1": 1}, "shape": [6, 5, 4],
        "categories": {"0": "2d", "1": "9z"},
    }  # fmt: skip
    hidden = {"name": "valid_1_a_1.nii.gz", "findings": {"0": "Cyst."}}
    lists = {"val": [entry], "test": [hidden, entry, {"findings": {}}]}
    write(tmp_path, "dataset.json", json.dumps(lists))
    channels = np.zeros((2, 6, 5, 4), np.uint8)
    channels[0, 5, 0, 1] = 1
    channels[0, 0, 0, 0] = 2
    channels[1, 2, 2, :] = 1
    nifti(tmp_path, f"segmentations/{name}", channels, np.eye(4))
    studies, rejected = read("rexgroundingct", tmp_path)
    assert list(studies) == ["validate/train_99999_a_2", "test/valid_1_a_1"]
    assert reasons(rejected) == ["row_malformed"] * 2
    # without the CT nothing says where the voxels lie
    assert reasons(studies["validate/train_99999_a_2"].left_out) == [
        "label_not_declared", "image_not_found",
    ]  # fmt: skip
    ct = f"dataset/train_fixed/train_99999/train_99999_a/{name}"
    nifti(tmp_path, ct, np.zeros((6, 5, 4), np.int16), LPS)
    studies, _ = read("rexgroundingct", tmp_path)
    study = studies["validate/train_99999_a_2"]
    assert study.findings == "A nodule. Effusion on the left."
    first, second, effusion = gold(study).masks
    assert (first.phrase_id, first.instance, first.target) == ("0", 0, "lung nodule")
    assert np.argwhere(first.mask.voxels).tolist() == [[0, 4, 1]]  # RAS+: both axes are turned
    assert np.argwhere(second.mask.voxels).tolist() == [[5, 4, 0]]
    assert (effusion.label, effusion.mask.voxel_count) == ("9z", 4)
    assert study.images[0].shape == (6, 5, 4)
    nifti(tmp_path, ct, np.zeros((6, 5, 3), np.int16), LPS)
    studies, _ = read("rexgroundingct", tmp_path)
    left_out = studies["validate/train_99999_a_2"].left_out
    assert reasons(left_out) == ["label_not_declared", "mask_wrong_shape"]


def test_radgenome_groups_sentences_by_volume_and_reads_region_masks(tmp_path: Path) -> None:
    write(
        tmp_path,
        "dataset/radgenome_files/train_region_report.csv",
        "Volumename,Anatomy,Sentence",
        "train_1_a_1.nii.gz,lung,A nodule is seen in the left lung.",
        "train_2_a_1.nii.gz,,No pathology.",
        'train_1_a_1.nii.gz,trachea and bronchie,"Trachea, bronchi are open"',
        "train_1_a_1.nii.gz,knee,Knee is normal.",
        "train_1_a_1.nii.gz",
    )
    volume = "dataset/train_preprocessed/train_1/train_1a/train_1_a_1.nii.gz"
    nifti(tmp_path, volume, np.zeros((4, 4, 3), np.int16), LPS)
    for region, voxel in (("lung", 1), ("heart", 0), ("pleura", 1)):
        size = (4, 4, 2 if region == "pleura" else 3)
        ids = np.zeros(size, np.uint8)
        ids[0, 0, 0] = voxel
        nifti(tmp_path, f"dataset/train_region_mask/seg_train_1_a_1/{region}.nii.gz", ids, LPS)
    studies, rejected = read("radgenome-chest-ct", tmp_path)
    assert list(studies) == ["train/train_1_a_1", "train/train_2_a_1"]
    assert reasons(rejected) == ["row_malformed"]
    study = studies["train/train_1_a_1"]
    assert study.findings == (
        "A nodule is seen in the left lung. Trachea, bronchi are open. Knee is normal."
    )
    assert [(p.label, p.target) for p in gold(study).phrases] == [
        ("lung", "lung"), ("trachea and bronchie", "airway"), ("knee", None),
    ]  # fmt: skip
    (lung,) = gold(study).masks
    assert np.argwhere(lung.mask.voxels).tolist() == [[3, 3, 0]]
    assert reasons(study.left_out) == ["label_not_declared", "mask_wrong_shape"]
    assert gold(studies["train/train_2_a_1"]).phrases[0].label is None


def test_chest_imagenome_takes_original_pixels(tmp_path: Path) -> None:
    write(
        tmp_path,
        "gold_dataset/gold_bbox_coordinate_annotations_1000images.csv",
        "image_id,x1,y1,x2,y2,bbox_name,original_x1,original_x2,original_y1,original_y2",
        f"{DICOM}.dcm,1,1,5,5,left lung,60,90,10,40",
        f"{DICOM}.dcm,1,1,5,5,left foot,60,90,10,40",
        f"{DICOM}.dcm,1,1,5,5,spine,60,x,10,40",
    )
    write(
        tmp_path,
        "gold_dataset/gold_object_attribute_with_coordinates.txt",
        "image_id\tbbox\tcontext\tcategoryID\tlabel_name\tsentence",
        f"{DICOM}.dcm\tleft lung\tyes\tanatomicalfinding\tlung opacity\tA left opacity",
        f"{DICOM}.dcm\tright lung\tyes\tanatomicalfinding\tlung opacity\tA left opacity",
        f"{DICOM}.dcm\tleft lung\tno\tdisease\tpneumonia\tNo pneumonia.",
        f"{DICOM}.dcm\tleft lung\tyes\tseverity\tmild\tA left opacity",
        f"{DICOM}.dcm\tleft lung\tmaybe\tdisease\tpneumonia\t",
    )
    picture(tmp_path, f"files/p19/p19999991/s59999991/{DICOM}.jpg")
    studies, _ = read("chest-imagenome", tmp_path)
    study = studies[f"test/{DICOM}"]
    assert study.findings == "A left opacity. No pneumonia."
    assert study.images[0].shape == (50, 100)
    (box,) = gold(study).boxes
    assert (box.box, box.target) == (Box(60, 10, 90, 40, 1.0), "left lung")
    assert [(p.label, p.target, p.assertion) for p in gold(study).phrases] == [
        ("lung opacity", "pulmonary opacification", "present"),
        ("pneumonia", "pneumonia", "absent"),
    ]
    assert reasons(study.left_out) == ["label_not_declared", *["mark_unreadable"] * 2]


def test_silver_scene_graphs_are_read_in_their_archive(tmp_path: Path) -> None:
    graph = {
        "objects": [{
            "bbox_name": "spine", "original_x1": 1, "original_y1": 2, "original_x2": 3,
            "original_y2": 4,
        }],
        "attributes": [{
            "bbox_name": "spine", "phrases": ["Scoliosis\n is seen."],
            "attributes": [["anatomicalfinding|yes|scoliosis", "severity|yes|mild"]],
        }],
    }  # fmt: skip
    (tmp_path / "silver_dataset").mkdir()
    with zipfile.ZipFile(tmp_path / "silver_dataset" / "scene_graph.zip", "w") as archive:
        archive.writestr("scene_graph/a_SceneGraph.json", json.dumps(graph))
        archive.writestr("scene_graph/b_SceneGraph.json", "[")
    with pytest.raises(DatasetError, match="has none of silver_dataset/splits"):
        read("chest-imagenome-silver", tmp_path)
    write(
        tmp_path,
        "silver_dataset/splits/valid.csv",
        ",subject_id,study_id,dicom_id",
        "0,10,50,a",
        "1,11,51,b",
        "2,12,52,c",
    )
    studies, rejected = read("chest-imagenome-silver", tmp_path)
    study = studies["validate/a"]
    assert (study.findings, study.patient_id) == ("Scoliosis is seen.", "10")
    assert gold(study).boxes[0].box == Box(1, 2, 3, 4, 1.0)
    assert gold(study).phrases[0].target == "scoliosis"
    assert reasons(rejected) == ["file_unreadable"] * 2
    (tmp_path / "silver_dataset" / "scene_graph.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="fetch it again"):
        read("chest-imagenome-silver", tmp_path)
