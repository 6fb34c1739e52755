"""Folders of DICOM studies as archives export them, with reports named in several ways."""

from pathlib import Path

import numpy as np
import pytest

from storage.datasets.own_archive.columns import parse_given
from storage.datasets.own_archive.declare import draft
from storage.datasets.own_archive.dicom_archive import look_at_dicom
from storage.datasets.own_archive.looked import Looked
from storage.datasets.own_archive.request import Request
from storage.datasets.reader import DatasetError, Study
from storage.images.loading import load_volume
from tests.storage.images.dicom_files import write, write_ct_slice, write_radiograph

FILM = np.arange(12, dtype=np.uint16).reshape(3, 4)
SLICE = np.full((4, 4), -500, np.int16)
REPORT = "FINDINGS: Clear lungs.\n\nIMPRESSION: No disease.\n"


def look(folder: Path, reports: Path | None = None, *columns: str) -> Looked:
    request = Request(folder / "out" / "mine.yaml", reports, parse_given(columns))
    return look_at_dicom(request, folder / "pacs")


def studies(folder: Path, looked: Looked) -> dict[str, Study]:
    """What is read where the table and its links are now."""
    assert looked.index is not None
    values = dict(looked.values) | {"folder": str(looked.index)}
    reader = draft(values, folder / "out" / "mine.yaml").open()
    read = reader.read(reader.records())
    return {study.study_id: study for study in read if isinstance(study, Study)}


@pytest.fixture
def pacs(tmp_path: Path) -> Path:
    """A film; a CT among other objects, without suffixes; a film alone in its folder."""
    folder = tmp_path / "pacs"
    (folder / "all").mkdir(parents=True)
    (folder / "p3" / "case 3").mkdir(parents=True)
    write_radiograph(folder / "all" / "IM1", FILM, AccessionNumber="A1", **study("1", "P1"))
    of_ct = {"AccessionNumber": "A2", **study("2", "P2")}
    for n in range(4):
        place = folder / "all" / f"S{n}"
        write_ct_slice(place, SLICE, (0, 0, n), SOPInstanceUID=f"1.2.{n + 1}", **of_ct)
    copy = folder / "all" / "S0 copy"
    write_ct_slice(copy, SLICE, (0, 0, 0), SOPInstanceUID="1.2.1", **of_ct)
    write(folder / "all" / "SR", FILM, **{**of_ct, "Modality": "SR", "SeriesInstanceUID": "9.9"})
    third = {"AccessionNumber": "A3", **study("3", "P3")}
    write_radiograph(folder / "p3" / "case 3" / "x.dcm", FILM, **third)
    (folder / "all" / "cut.dcm").write_bytes((folder / "all" / "IM1").read_bytes()[:90])
    (folder / "p3" / "loop").symlink_to(folder)
    (folder / "DICOMDIR").write_bytes(b"index")
    (folder / "readme.pdf").write_bytes(b"%PDF")
    return folder


def study(uid: str, patient: str) -> dict[str, str]:
    return {
        "StudyInstanceUID": f"1.{uid}",
        "SeriesInstanceUID": f"1.{uid}.1",
        "PatientID": patient,
    }


def test_studies_are_grouped_by_their_headers(tmp_path: Path, pacs: Path) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "a1_final.txt").write_text(REPORT)
    (reports / "1.2.txt").write_text(REPORT)
    (reports / "case 3.TXT").write_text(REPORT)
    (reports / "unknown.txt").write_text(REPORT)
    looked = look(tmp_path, reports)
    assert looked.understood["study id"] == "accession number"
    assert looked.checked.sections == {"findings and impression": 3}
    assert looked.checked.images == {"DX": 2, "CT": 1}
    remarks = {code: found.count for code, found in looked.checked.remarks.items()}
    assert remarks == {
        "report_of_no_study": 1,
        "other_modality": 1,
        "same_object": 1,
        "not_dicom": 2,
    }
    assert [*looked.checked.faults] == ["image_unreadable"]
    found = studies(tmp_path, looked)
    assert {name: s.patient_id for name, s in found.items()} == {"A1": "P1", "A2": "P2", "A3": "P3"}
    [volume] = found["A2"].images
    assert load_volume(Path(volume.uri)).hu.shape == (4, 4, 4)
    assert found["A3"].images[0].image_id == "x"
    assert not [path for path in (tmp_path / "out").rglob("*.dcm") if not path.is_symlink()]


def test_reports_in_a_table_and_two_of_one_study(
    tmp_path: Path, pacs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "reports.csv"
    table.write_text(
        "Nr;Befund;Fold\nA1;FINDINGS: Clear. IMPRESSION: None.;train\nA2;Normal.;test\n"
        "A2;Not normal.;test\nA9;Normal.;test\n"
    )
    looked = look(tmp_path, table, "study_id=Nr", "report=Befund")
    assert looked.checked.remarks["report_of_no_study"].examples == ["reports.csv row 4"]
    two = "study A2: reports.csv row 2, 3"
    assert looked.checked.faults["several_reports"].examples == [two]
    found = studies(tmp_path, looked)
    assert (found["A1"].findings, found["A1"].impression) == ("Clear.", "None.")
    monkeypatch.setattr("storage.datasets.own_archive.looked._MOST_SPLITS", 1)
    with pytest.raises(DatasetError, match=rf"^{table}: Fold was taken for the split"):
        look(tmp_path, table, "study_id=Nr", "report=Befund")
    with pytest.raises(DatasetError, match="no column is known to hold text"):
        look(tmp_path, table, "study_id=Nr")


def test_an_accession_number_counts_before_the_name_of_a_folder(tmp_path: Path) -> None:
    for uid, accession, folder in [("1", "A1", "x"), ("2", "A2", "a1"), ("3", "A3", "p")]:
        (tmp_path / "pacs" / folder).mkdir(parents=True)
        path = tmp_path / "pacs" / folder / "IM.dcm"
        write_radiograph(path, FILM, AccessionNumber=accession, **study(uid, f"P{int(uid) // 2}"))
    reports = tmp_path / "reports"
    reports.mkdir()
    for name in ("A1", "P1", "none"):
        (reports / f"{name}.txt").write_text(REPORT)
    looked = look(tmp_path, reports)
    remarks = looked.checked.remarks
    assert remarks["report_of_no_study"].examples == ["none.txt"]
    assert remarks["report_of_several"].examples == ["P1.txt"]
    assert {name: s.findings for name, s in studies(tmp_path, looked).items()} == {
        "A1": "Clear lungs.",
        "A2": None,
        "A3": None,
    }
    table = tmp_path / "reports.csv"
    table.write_text("Accession,Report\na1,Clear.\nP1,Clear.\n")
    remarks = look(tmp_path, table).checked.remarks
    assert remarks["report_of_several"].examples == ["reports.csv row 2"]


def test_of_two_copies_the_whole_one_is_read(tmp_path: Path) -> None:
    whole = tmp_path / "pacs" / "b.dcm"
    whole.parent.mkdir()
    write_radiograph(whole, FILM, SOPInstanceUID="1.2.1", **study("1", "P1"))
    (whole.parent / "a.dcm").write_bytes(whole.read_bytes()[:-8])
    (whole.parent / "c.dcm").write_bytes(whole.read_bytes())
    looked = look(tmp_path)
    assert looked.checked.remarks["same_object"].count == 2
    assert [image.image_id for image in studies(tmp_path, looked)["1.1"].images] == ["b"]


def test_messages_name_the_files_of_the_archive(tmp_path: Path) -> None:
    """A series among other objects, and one in a folder of its own, each without a slice."""
    for folder, uid in [("all", "1"), ("own", "2")]:
        (tmp_path / "pacs" / folder).mkdir(parents=True)
        for n in (0, 1, 2, 4, 5):
            place = tmp_path / "pacs" / folder / f"S{n}"
            of_slice = {"SOPInstanceUID": f"1.{uid}.{n}", "InstanceNumber": f"{n}"}
            write_ct_slice(place, SLICE, (0, 0, n), **study(uid, "P"), **of_slice)
    write_radiograph(tmp_path / "pacs" / "all" / "film", FILM, **study("3", "P"))
    looked = look(tmp_path)
    among, alone = looked.checked.faults["series_incomplete"].examples
    assert among.startswith("study 1.1: series 1.1.1 lacks slices")
    assert "between all/S2 and all/S4" in among
    assert alone.startswith(f"study 1.2: {tmp_path / 'pacs' / 'own'} lacks slices")


def test_without_reports_or_without_dicom(tmp_path: Path, pacs: Path) -> None:
    looked = look(tmp_path)
    assert looked.values["reports"] is False
    assert "only ingested" in looked.understood["reports"]
    (tmp_path / "pacs").rename(tmp_path / "old")
    (tmp_path / "pacs").mkdir()
    (tmp_path / "pacs" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(DatasetError, match=r"no DICOM file, but 1 \.png: name NIfTI, PNG"):
        look(tmp_path)


def test_headers_of_a_large_folder_are_read_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.datasets.own_archive.dicom_folder._IN_PROCESS", 1)
    (tmp_path / "pacs").mkdir()
    for n in range(3):
        write_radiograph(tmp_path / "pacs" / f"{n}", FILM, **study(f"{n}", "ANONYMOUS"))
    looked = look(tmp_path)
    assert looked.understood["study id"] == "Study Instance UID"
    assert looked.checked.studies == 3


def test_images_and_reports_of_other_kinds_are_told(tmp_path: Path) -> None:
    (tmp_path / "pacs").mkdir()
    write_radiograph(tmp_path / "pacs" / "1", FILM, StudyInstanceUID="1.2")
    (tmp_path / "pacs" / "ct.nii.gz").write_bytes(b"")
    (tmp_path / "pacs" / "1.txt").write_text(REPORT)
    (tmp_path / "pacs" / "2.RTF").write_text("{\\rtf1}")
    remarks = look(tmp_path).checked.remarks
    assert remarks["image_not_dicom"].examples == ["1 .nii.gz"]
    assert remarks["report_not_text"].examples == ["2.RTF"]
