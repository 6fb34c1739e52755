"""The family `boxes` on small trees of each declared layout, and on the real tables."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from storage.datasets.box_fusion import fuse
from storage.datasets.drawn_marks import decode_runs
from storage.datasets.marks import MarkError
from storage.datasets.reader import CountsFiles, DatasetError, Study
from storage.datasets.registry import find_declaration
from storage.records import Box
from tests.storage.datasets.trees import picture, read, reasons, write
from tests.storage.images.dicom_files import write_radiograph

CLASSES = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,"
    "Edema,Emphysema,Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,"
    "Mediastinal shift,Nodule/Mass,Pleural effusion,Pleural thickening,Pneumothorax,"
    "Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,Tuberculosis"
)


def values(*present: str) -> str:
    return ",".join("1" if name in present else "0" for name in CLASSES.split(","))


def vindr(folder: Path) -> None:
    write(
        folder,
        "annotations/annotations_train.csv",
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
        "aa,R1,Cardiomegaly,10.5,10,50,39.5",
        "aa,R2,Cardiomegaly,12,12,52,41",
        "aa,R2,Cardiomegaly,12,12,52,41.5",  # drawn twice
        "aa,R3,Nodule/Mass,80,5,90,15",
        "aa,R3,Other lesion,90,40,80,45",
        "aa,R3,Hernia,1,1,5,5",
        "aa,R1,Nodule/Mass,400,5,450,15",
        "aa,R1,Nodule/Mass,1,x,4,15",
        "aa,R1,Nodule/Mass,,,,",
        "bb,R1,No finding,,,,",
        "bb,R2,No finding,,,,",
        "bb,R4,No finding,,,,",
        "cc,R4",
    )
    write(
        folder,
        "annotations/annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max",
        "dd,Pleural effusion,0,0,10,10",
    )
    write(
        folder,
        "annotations/image_labels_train.csv",
        f"image_id,rad_id,{CLASSES},Other diseases,No finding",
        f"aa,R1,{values('Cardiomegaly')},0,0",
        f"aa,R2,{values('Cardiomegaly')},0,0",
        f"aa,R3,{values('Nodule/Mass')},1,0",
        f"bb,R1,{values()},0,1",
    )
    write(
        folder,
        "annotations/image_labels_test.csv",
        f"image_id,{CLASSES},Other disease,No finding",
        f"dd,{values('Pleural effusion')},1,0",
    )
    (folder / "train").mkdir()
    write_radiograph(folder / "train" / "aa.dicom", np.zeros((50, 100), np.uint16))


def test_vindr_fuses_readers_and_keeps_their_number(tmp_path: Path) -> None:
    vindr(tmp_path)
    studies, rejected = read("vindr-cxr", tmp_path)
    assert list(studies) == ["train/aa", "train/bb", "test/dd"]
    assert [(r.reason, r.study_id) for r in rejected] == [
        ("row_malformed", "annotations_train.csv row 13")
    ]
    seen = studies["train/aa"]
    assert seen.gold is not None
    heart, nodule = seen.gold.boxes
    # R1: 10 10 50 40; R2: the mean of 12 12 52 41 and 12 12 52 42; then the mean of both
    assert heart.box == Box(11, 11, 51, 41, 1.0)
    assert (heart.target, heart.readers, heart.instance) == ("cardiomegaly", 2, 0)
    assert (nodule.target, nodule.readers) == ("lung nodule", 1)
    assert reasons(seen.left_out) == [
        "box_reversed", "label_not_declared", "box_outside_image",
        "mark_unreadable", "mark_unreadable",
    ]  # fmt: skip
    assert seen.images[0].shape == (50, 100)
    labels = seen.labels
    assert (labels["vindr:Cardiomegaly"], labels["vindr:Nodule/Mass"]) == (1, -1)
    assert (labels["vindr:Atelectasis"], labels["vindr:Other diseases"]) == (0, -1)
    assert studies["train/bb"].labels["vindr:No finding"] == 1
    consensus = studies["test/dd"]
    assert consensus.gold is not None
    assert [(b.readers, b.annotator) for b in consensus.gold.boxes] == [(5, None)]
    assert consensus.labels["vindr:Other diseases"] == 1
    assert consensus.images[0].uri.endswith("test/dd.dicom")


def test_two_boxes_of_one_reader_stay_two() -> None:
    first, second, apart = Box(0, 0, 10, 10, 1), Box(4, 0, 14, 10, 1), Box(40, 40, 50, 50, 1)
    assert len(fuse([("R1", first), ("R1", second)])) == 2
    assert [f.readers for f in fuse([("R1", first), ("R2", second), ("R3", apart)])] == [2, 1]
    assert fuse([]) == []


def test_nih_boxes_stand_in_1024_pixels_under_a_heading_with_commas(tmp_path: Path) -> None:
    write(
        tmp_path,
        "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        "00000013_005.png,Infiltrate,512,256,256,128",
        "00000013_005.png,Mass,1000,1000,24,24",
    )
    write(
        tmp_path,
        "Data_Entry_2017.csv",
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],",
        "00000013_005.png,Infiltration|Mass,5,13,60,M,AP,3056,2544,0.139,0.139,",
        "00000014_000.png,No Finding,0,14,60,F,PA,3056,2544,0.139,0.139,",
        "00000015_000.png,Cyst,0,15,60,F,PA,3056,2544,0.139,0.139,",
    )
    write(tmp_path, "test_list.txt", "00000014_000.png")
    picture(tmp_path, "images_002/images/00000013_005.png", (512, 512))
    studies, rejected = read("nih-chestxray14", tmp_path)
    assert reasons(rejected) == ["label_unreadable"]
    assert list(studies) == ["train/00000013_005", "test/00000014_000"]
    study = studies["train/00000013_005"]
    assert study.gold is not None
    assert [b.box for b in study.gold.boxes] == [
        Box(256, 128, 384, 192, 1.0), Box(500, 500, 512, 512, 1.0),
    ]  # fmt: skip
    assert (study.patient_id, study.images[0].view) == ("13", "AP")
    assert (study.labels["nih:Mass"], study.labels["nih:Edema"]) == (1, 0)
    (tmp_path / "test_list.txt").unlink()
    with pytest.raises(DatasetError, match=r"has no test_list\.txt"):
        read("nih-chestxray14", tmp_path)


def test_siim_masks_run_down_the_columns_from_the_end_of_the_last_run(tmp_path: Path) -> None:
    expected = np.zeros((3, 4), bool)
    expected[1:3, 0] = expected[0, 1] = expected[2, 3] = True
    assert np.array_equal(decode_runs("1 3 7 1", (3, 4)), expected)
    for broken in ("1", "1 x", "-1 2", "0 13", ""):
        with pytest.raises(MarkError):
            decode_runs(broken, (3, 4))
    write(
        tmp_path,
        "train-rle.csv",
        "ImageId, EncodedPixels",
        "1.2.3,5 2",
        "1.2.3,1024 1",
        "1.2.4,-1",
        "1.2.5,5 2",
    )
    folder = tmp_path / "dicom-images-train" / "1.2" / "1.3"
    folder.mkdir(parents=True)
    write_radiograph(folder / "1.2.5.dcm", np.zeros((50, 100), np.uint8))
    studies, _ = read("siim-pneumothorax", tmp_path)
    gold = studies["train/1.2.3"].gold
    assert gold is not None
    assert [(m.instance, m.mask.voxel_count, m.target) for m in gold.masks] == [
        (0, 2, "pneumothorax"), (1, 1, "pneumothorax"),
    ]  # fmt: skip
    assert np.argwhere(gold.masks[1].mask.voxels).tolist() == [[0, 1]]
    assert not studies["train/1.2.4"].left_out
    assert reasons(studies["train/1.2.5"].left_out) == ["mask_wrong_shape"]
    assert studies["train/1.2.5"].images[0].uri == str(folder / "1.2.5.dcm")


def test_chexpert_has_a_study_of_several_views(tmp_path: Path) -> None:
    names = find_declaration("chexpert").layout["labels"]["names"]
    row = "{},Female,68,{},{},1.0,,-1.0" + ",0.0" * (len(names) - 3)
    release = "CheXpert-v1.0-small/train/patient00001/study1/"
    write(
        tmp_path,
        "CheXpert-v1.0-small/train.csv",
        f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(names)}",
        row.format(f"{release}view1_frontal.jpg", "Frontal", "AP"),
        row.format(f"{release}view2_lateral.jpg", "Lateral", ""),
        row.format("", "Lateral", ""),
        row.format("../../../../patient00001/study1/view3.jpg", "Lateral", ""),
    )
    image = picture(tmp_path, f"{release}view1_frontal.jpg")
    for folder in (tmp_path, tmp_path / "CheXpert-v1.0-small"):
        studies, rejected = read("chexpert", folder)
        study = studies["train/patient00001/study1"]
        assert reasons(rejected) == ["row_malformed"]
        assert [i.view for i in study.images] == ["AP", "LATERAL"]
        assert study.images[0].uri == str(image)
        assert reasons(study.left_out) == ["path_outside_source"]
        assert study.labels["chexpert:Cardiomegaly"] == -1
        assert "chexpert:Enlarged Cardiomediastinum" not in study.labels


def test_the_real_tables(tmp_path: Path, real_input) -> None:
    tables = real_input("xray_labels/artefact.json").parent
    with zipfile.ZipFile(tables / "rsna-pneumonia" / "stage_2_train_labels.csv.zip") as archive:
        archive.extractall(tmp_path / "rsna-pneumonia")
    shutil.copytree(tables / "nih-chestxray14", tmp_path / "nih-chestxray14")
    (tmp_path / "nih-chestxray14" / "Data_Entry_2017_v2020.csv.gz").unlink()
    labels = "Image Index,Finding Labels,Patient ID,View Position"
    write(tmp_path, "nih-chestxray14/Data_Entry_2017.csv", labels, "00013118_008.png,Mass,1,PA")
    write(tmp_path, "nih-chestxray14/test_list.txt", "00013118_008.png")
    classes = "stage_2_detailed_class_info.csv"
    first = "0004cfab-14fd-4e49-80ba-63a80b6bddd6,Normal"
    write(tmp_path, f"rsna-pneumonia/{classes}", "patientId,class", first)
    for name, folder, counts in (
        ("vindr-cxr-kaggle", tables, {"images": 15000, "rows": 67914, "boxes": 36096}),
        ("siim-pneumothorax", tables, {"images": 12047, "rows": 12954, "masks": 3576}),
        ("nih-chestxray14", tmp_path, {"images": 880, "rows": 984, "boxes": 984}),
        ("rsna-pneumonia", tmp_path, {"images": 26684, "rows": 30227, "boxes": 9555}),
    ):
        reader = find_declaration(name).open(folder / name)
        assert isinstance(reader, CountsFiles)
        assert dict(reader.census()) == counts, name
        some = [record for record, _ in zip(reader.records(), range(100), strict=False)]
        studies = list(reader.read(some))
        assert all(isinstance(study, Study) and not study.left_out for study in studies)
