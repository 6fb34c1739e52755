"""A small tree in the layout of MIMIC-CXR 2.1.0 and MIMIC-CXR-JPG 2.1.0, with made-up texts."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.datasets.reader import DatasetError, FindsFiles, Study
from storage.datasets.registry import find_declaration
from storage.rejects import Reject
from tests.storage.images.dicom_files import write_radiograph

NAMES = "Atelectasis,Edema,Lung Opacity,No Finding"
IMAGES = {
    "0a1b2c3d-00000001-00000001-00000001-00000001": "PA",
    "0a1b2c3d-00000002-00000002-00000002-00000002": "LL",
    "0a1b2c3d-00000003-00000003-00000003-00000003": "",
}
PA, LATERAL, UNKNOWN = IMAGES
PIXELS = np.zeros((20, 30), np.uint16)


def _report(findings: str = "Edema in both lungs.", impression: str = "Edema.") -> str:
    return f"   FINAL REPORT\n FINDINGS: \n \n {findings}\n \n IMPRESSION: \n \n {impression}\n"


def _table(file: Path, *lines: str) -> None:
    with gzip.open(file, "wt") as stream:
        stream.write("\n".join(lines) + "\n")


def _texts(folder: Path) -> dict[str, str]:
    return {
        "files/p10/p10000001/s50000001.txt": _report("Edema in\n both  lungs."),
        "files/p10/p10000001/s50000002.txt": "   FINAL REPORT\n COMPARISON: None.\n",
        "files/p11/p11000002/s50000003.txt": _report(),
        "files/p11/p11000002/._s50000003.txt": "",
        "files/p11/p11000002/index.html": "",
    }


@pytest.fixture
def jpg(tmp_path: Path) -> Path:
    """MIMIC-CXR-JPG beside what a test adds of MIMIC-CXR."""
    folder = tmp_path / "mimic-cxr-jpg" / "2.1.0"
    study = folder / "files/p10/p10000001/s50000001"
    study.mkdir(parents=True)
    Image.new("L", (30, 20)).save(study / f"{PA}.jpg")
    _table(
        folder / "mimic-cxr-2.0.0-metadata.csv.gz",
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns",
        *(f"{i},10000001,50000001,CHEST,{view},20,30" for i, view in IMAGES.items()),
        "short,10000001,50000001",
    )
    _table(
        folder / "mimic-cxr-2.0.0-split.csv.gz",
        "dicom_id,study_id,subject_id,split",
        f"{PA},50000001,10000001,validate",
        f"{LATERAL},50000001,10000001,validate",
    )
    labels = (f"subject_id,study_id,{NAMES}", "10000001,50000001,1.0,-1.0,,0.0")
    _table(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", *labels)
    _table(folder / "mimic-cxr-2.0.0-negbio.csv.gz", labels[0], "10000001,50000001,often,,1.0,")
    (folder / "mimic-cxr-2.1.0-test-set-labeled.csv").write_text(
        "study_id,Airspace Opacity,Edema\n50000001,1.0,0.0\n"
    )
    return tmp_path


def _read(root: Path) -> dict[str, Study | Reject]:
    reader = find_declaration("mimic-cxr").open(root)
    return {result.study_id: result for result in reader.read(reader.records())}


def test_reports_of_an_archive_with_the_images_and_tables_beside_it(jpg: Path) -> None:
    folder = jpg / "mimic-cxr/2.1.0"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w") as archive:
        for name, text in _texts(folder).items():
            archive.writestr(name, text)
    reader = find_declaration("mimic-cxr").open(jpg)
    records = list(reader.records())
    assert [(r.split, r.patient_id) for r in records] == [
        ("validate", "10000001"),
        ("unsplit", "10000001"),
        ("unsplit", "11000002"),
    ]
    first, second, third = reader.read(records)
    assert isinstance(first, Study)
    assert (first.study_id, first.source) == ("50000001", "MIMIC-CXR")
    assert (first.findings, first.impression) == ("Edema in both lungs.", "Edema.")
    assert [(i.view, i.shape) for i in first.images] == [
        ("PA", (20, 30)),
        ("LATERAL", None),
        (None, None),
    ]
    assert Path(first.images[0].uri).is_file()
    assert first.labels == {
        "chexpert:Atelectasis": 1,
        "chexpert:Edema": -1,
        "chexpert:No Finding": 0,
        "negbio:Lung Opacity": 1,
        "radiologist:Lung Opacity": 1,
        "radiologist:Edema": 0,
    }
    assert sorted(r.reason for r in first.left_out) == ["label_unreadable", "row_malformed"]
    assert isinstance(second, Reject)
    assert second.reason == "no_report_text"
    assert isinstance(third, Study)
    assert third.labels == {}
    assert isinstance(reader, FindsFiles)
    assert any("mimic-cxr-reports.zip" in said for said in reader.found())


def test_a_table_of_labels_that_cannot_be_read_stops_nothing(jpg: Path) -> None:
    tables = jpg / "mimic-cxr-jpg" / "2.1.0"
    whole = (tables / "mimic-cxr-2.0.0-negbio.csv.gz").read_bytes()
    (tables / "mimic-cxr-2.0.0-negbio.csv.gz").write_bytes(whole[:-9])
    _table(tables / "mimic-cxr-2.0.0-chexpert.csv.gz", "subject_id,Edema", "10000001,1.0")
    (jpg / "files/p10/p10000001").mkdir(parents=True)
    (jpg / "files/p10/p10000001/s50000001.txt").write_text(_report())
    study = _read(jpg)["50000001"]
    assert isinstance(study, Study)
    assert set(study.labels) == {"radiologist:Lung Opacity", "radiologist:Edema"}
    unread = [r for r in study.left_out if r.reason == "table_unreadable"]
    assert ["no column `study_id`" in r.detail for r in unread] == [True, False]
    reader = find_declaration("mimic-cxr").open(jpg)
    assert isinstance(reader, FindsFiles)
    assert sum("labels are left out" in said for said in reader.found()) == 2


def test_unpacked_reports_with_dicom_images_and_no_tables(tmp_path: Path) -> None:
    """As `wget -r` leaves them; views are those of the DICOM headers."""
    folder = tmp_path / "physionet.org/files/mimic-cxr/2.0.0"
    for name, text in _texts(folder).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "files/p11/p11000002/s50000004.txt").write_bytes(b" FINDINGS: \xff\n")
    study = folder / "files/p11/p11000002/s50000003"
    study.mkdir()
    write_radiograph(study / f"{PA}.dcm", PIXELS, ViewPosition="AP")
    before = find_declaration("mimic-cxr").open(tmp_path).fingerprint()
    results = _read(tmp_path)
    assert set(results) == {"50000001", "50000002", "50000003", "50000004"}
    found = results["50000003"]
    assert isinstance(found, Study)
    assert [(i.image_id, i.view) for i in found.images] == [(PA, "AP")]
    bad = results["50000004"]
    assert isinstance(bad, Reject)
    assert (bad.reason, "UTF-8" in bad.detail) == ("file_unreadable", True)
    write_radiograph(study / f"{LATERAL}.dcm", PIXELS, ViewPosition="LL")
    assert find_declaration("mimic-cxr").open(tmp_path).fingerprint() != before


def test_what_cannot_be_read_at_all_is_one_sentence(jpg: Path) -> None:
    with pytest.raises(DatasetError, match="MIMIC-CXR-JPG alone has no reports"):
        _read(jpg)
    (jpg / "mimic-cxr-reports.zip").write_bytes(b"PK cut short")
    with pytest.raises(DatasetError, match="is damaged"):
        _read(jpg)
