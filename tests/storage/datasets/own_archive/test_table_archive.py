"""Tables as sites export them: what is understood, what is wrong with which row, what is read."""

import csv
import json
import os
from pathlib import Path

import pytest
import yaml
from PIL import Image

from storage.datasets.declaration import read_declaration
from storage.datasets.own_archive.columns import parse_given
from storage.datasets.own_archive.declare import parse_split, require_free, write
from storage.datasets.own_archive.looked import Looked
from storage.datasets.own_archive.request import Request
from storage.datasets.own_archive.table_archive import look_at_table
from storage.datasets.reader import DatasetError, Study

REPORT = "FINAL REPORT\nHISTORY: cough.\n\nFINDINGS:\nClear lungs.\n\nIMPRESSION:\nNo disease."


def look(
    folder: Path,
    table: str,
    *columns: str,
    split: str | None = None,
    encoding: str | None = None,
    images: Path | None = None,
    reports: Path | None = None,
) -> Looked:
    request = Request(
        folder / "mine.yaml", reports, parse_given(columns), encoding, parse_split(split)
    )
    return look_at_table(request, folder / table, images)


def save(path: Path, rows: list[list[str]], separator: str = ",", encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=separator).writerows(rows)


def film(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (30, 20), 7).save(path)


def studies(folder: Path, looked: Looked) -> dict[str, Study]:
    """What a build reads by the declaration, once it is written."""
    write(looked.values, folder / "mine.yaml")
    reader = read_declaration(folder / "mine.yaml").open()
    read = [study for study in reader.read(reader.records()) if isinstance(study, Study)]
    return {study.study_id: study for study in read}


def test_a_german_table_from_windows_with_paths_of_another_machine(tmp_path: Path) -> None:
    film(tmp_path / "bilder" / "lunge" / "a.png")
    rows = [
        ["Fallnummer", "PatNr", "Befund", "Beurteilung", "Datei"],
        ["F1", "P1", "Größe normal.", "Normal.", r"D:\Export 3\lunge\a.png"],
        ["F2", "P2", "Clear.", "Normal.", r"D:\Export 3\lunge\A.PNG"],
    ]
    save(tmp_path / "t.csv", rows, ";", "cp1252")
    with pytest.raises(DatasetError, match=r"not utf-8 text, line 2: .* --encoding cp1252"):
        look(tmp_path, "t.csv")
    with pytest.raises(DatasetError, match="--columns study_id=Fallnummer; the columns are"):
        look(tmp_path, "t.csv", encoding="cp1252")
    named = ["study_id=fallnummer", "findings=Befund", "impression=Beurteilung"]
    unused = look(tmp_path, "t.csv", *named, encoding="cp1252", images=tmp_path / "bilder")
    assert unused.checked.remarks["column_of_paths"].examples == ["Datei"]

    looked = look(
        tmp_path, "t.csv", *named, "images=Datei", encoding="cp1252", images=tmp_path / "bilder"
    )
    assert looked.columns
    assert looked.columns.columns["patient_id"] == "PatNr"
    assert looked.understood["left off paths"] == "D:\\Export 3\\"
    assert looked.checked.images == {"OT": 1}
    [wrong] = looked.checked.faults["image_not_found"].examples
    assert wrong.startswith("study F2 (row 2): ")
    assert wrong.endswith("perhaps a.png was meant for A.PNG")
    found = studies(tmp_path, looked)
    assert (found["F1"].findings, found["F1"].impression) == ("Größe normal.", "Normal.")
    assert found["F1"].images[0].shape == (20, 30)


def test_paths_of_several_machines_in_one_table(tmp_path: Path) -> None:
    for n in range(4):
        film(tmp_path / "films" / f"{n}.png")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "0.txt").write_text(REPORT)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere.png"
    film(elsewhere)
    films = [
        "films/0.png",
        "films\\1.png",
        str(tmp_path / "films" / "2.png"),
        "D:\\X\\films\\3.png",
    ]
    rows = [[str(n), path, "E:\\Old\\texts\\0.txt"] for n, path in enumerate(films)]
    rows.append(["outside", str(elsewhere), "E:\\Old\\texts\\0.txt"])
    save(tmp_path / "t.csv", [["id", "image", "report file"], *rows])
    looked = look(tmp_path, "t.csv")
    assert looked.checked.images == {"OT": 4}
    [outside] = looked.checked.faults["path_outside_source"].examples
    assert outside.startswith("study outside (row 5): ")
    assert [*looked.checked.faults] == ["path_outside_source"]
    found = studies(tmp_path, looked)
    assert {study.impression for study in found.values()} == {"No disease."}
    assert [len(found[str(n)].images) for n in range(4)] == [1] * 4


def test_whole_reports_lists_of_images_and_splits_by_patient(tmp_path: Path) -> None:
    film(tmp_path / "x" / "a.png")
    film(tmp_path / "y" / "a.png")
    lines = [
        {
            "Accession-Number": f"A{n}",
            "MRN": f"P{n // 2}",
            "Report_Text": REPORT,
            "image paths": ["x/a.png", "y/a.png"],
        }
        for n in range(40)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "t.jsonl").write_text(text)
    looked = look(tmp_path, "t.jsonl", split="50/25/25")
    assert not looked.checked.faults
    assert looked.checked.sections == {"findings and impression": 40}
    assert looked.checked.patients == 20
    assert set(looked.checked.splits) == {"train", "validate", "test"}
    first = studies(tmp_path, looked)["A0"]
    assert (first.findings, first.impression) == ("Clear lungs.", "No disease.")
    assert [image.image_id for image in first.images] == ["x/a.png", "y/a.png"]
    reader = read_declaration(tmp_path / "mine.yaml").open()
    assert len({(r.patient_id, r.split) for r in reader.records()}) == 20

    lines.append(lines[0] | {"Accession-Number": "new", "MRN": "someone else"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    before = {record.key: record.split for record in reader.records()}
    (tmp_path / "t.jsonl").write_text(text)
    after = {r.key: r.split for r in read_declaration(tmp_path / "mine.yaml").open().records()}
    assert after.items() > before.items(), "patients stay in their split when others come"


def test_no_split_by_patient_without_a_column_of_patients(tmp_path: Path) -> None:
    save(tmp_path / "t.csv", [["Accession", "Report", "Who"], ["1", REPORT, "X"]])
    with pytest.raises(DatasetError, match=r"hold the patient: .* patient_id=…; not used are Who"):
        look(tmp_path, "t.csv", split="80/10/10")
    assert look(tmp_path, "t.csv", "patient_id=Who", split="80/10/10").checked.patients == 1


def test_every_kind_of_fault_is_told_with_its_row(tmp_path: Path) -> None:
    film(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    (tmp_path / "notes").mkdir()
    os.mkfifo(tmp_path / "pipe.dcm")
    rows = [
        ["Study", "Patient", "Findings", "Impression", "Image", "View", "Fold"],
        ["1", "P1", "Clear.", "None.", "a.png", "PA", "Training"],
        ["1", "P1", "Nodule.", "None.", "a.png", "PA", "Training"],
        ["2", "P2", "Clear.", "None.", "b.png", "PA", "val"],
        ["3", "P3", "Clear.", "None.", "../secret.png", "PA", "test"],
        ["4", "P2", "Clear.", "None.", "a.png", "PA", "test"],
        ["5", "P5", "", "", "a.png", "upside down", "test"],
        ["6", "P6", "Clear.", "None.", "notes", "PA", "tets"],
        ["7", "P7", "Clear.", "", "notes;pipe.dcm", "PA", "test"],
        ["", "P8", "Clear."],
    ]
    save(tmp_path / "t.csv", rows)
    looked = look(tmp_path, "t.csv")
    faults = {code: found.examples for code, found in looked.checked.faults.items()}
    assert set(faults) == {
        "rows_disagree",
        "image_unreadable",
        "path_outside_source",
        "patient_in_two_splits",
        "split_unknown",
        "row_malformed",
    }
    assert faults["rows_disagree"][0] == "t.csv row 1, 2: rows of study 1 differ in Findings"
    two = "study 2 in validate and study 4 in test are of one patient"
    assert faults["patient_in_two_splits"] == [two]
    assert len(faults["image_unreadable"]) == 3, "a file cut short, no file, a folder without DICOM"
    assert (
        f"study 7 (row 8): {tmp_path / 'pipe.dcm'} is neither a file nor a folder"
        in faults["image_unreadable"]
    )
    assert looked.values["splits"] == ["train", "validate", "test"]
    remarks = looked.checked.remarks
    assert remarks["no_text"].examples == ["study 5 (row 6)"]
    assert remarks["one_section"].examples == ["study 7 (row 8) has findings only"]
    assert remarks["view_not_known"].examples == ["study 5 (row 6): 'UPSIDE DOWN'"]
    assert looked.checked.rejected + looked.checked.studies == 8
    told = json.dumps([faults, {code: found.examples for code, found in remarks.items()}])
    assert "Nodule" not in told, "no text of a report"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"PK\x03\x04rest", "an Excel file.*save it as `CSV UTF-8`"),
        ("t.xls", b"\xd0\xcf\x11\xe0rest", "is an Excel file"),
        ("t.csv", b"sep=;\nid;text\n", "only Excel understands: delete this line"),
        ("t.csv", b"id,text\n", "holds no rows"),
        ("t.csv", b"Export of May\n\nNr;Befund\n1;x\n", "`Export of May`, .* `Nr` with 2 cells"),
        ("t.csv", b"A, May 1,\nid,report,sex\n1,x,f\n", "`id` with 3 cells comes below: delete"),
        ("t.pdf", b"%PDF", "a table is one of csv"),
        ("t.json", b"[]", "one JSON object a line"),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        look(tmp_path, name)


def test_utf_16_names_without_a_suffix_and_report_files(tmp_path: Path) -> None:
    film(tmp_path / "images" / "d1.png")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "1.txt").write_text(REPORT, encoding="utf-8-sig")
    rows = [["id", "image", "report_file"], ["1", "d1", str(tmp_path / "texts" / "1.txt")]]
    save(tmp_path / "t.txt", rows, "\t", "utf-16")
    looked = look(tmp_path, "t.txt", images=tmp_path / "images")
    assert not looked.checked.faults
    [study] = studies(tmp_path, looked).values()
    assert (study.impression, study.images[0].image_id) == ("No disease.", "d1")


def test_what_a_spreadsheet_or_an_anonymizer_did_is_told(tmp_path: Path) -> None:
    rows = [["Accession", "PID", "Report"], ["1,23457E+11", "X", "Clear."], ["2", "X", "Clear."]]
    save(tmp_path / "t.csv", rows)
    looked = look(tmp_path, "t.csv")
    assert looked.values["sections"] == "any", "no study has an impression"
    remarks = looked.checked.remarks
    assert remarks["rounded_id"].examples == ["study 1,23457E+11 (row 1)"]
    assert remarks["one_patient"].count == 1

    rows = [["Accession", '="Findings"', "Impression"], ['="001"', '="12 ""new"" nodules"', "New."]]
    rows += [["2", "Clear.", "#NAME?"], ["3", "#N/A", "None."], ["4", "#1 nodule!", "None."]]
    rows += [["'005", "=B2", "'no' edema"]]
    save(tmp_path / "t.csv", rows)
    looked = look(tmp_path, "t.csv")
    checked = looked.checked
    assert checked.remarks["formula"].examples == ["findings of study 005 (row 5)"]
    found = studies(tmp_path, looked)
    assert set(found) == {"001", "4", "005"}
    assert (found["001"].findings, found["005"].impression) == ('12 "new" nodules', "'no' edema")
    assert checked.faults["row_malformed"].examples == [
        "t.csv row 2: Impression holds #NAME?, an error of a spreadsheet, and no text any more",
        "t.csv row 3: Findings holds #N/A, an error of a spreadsheet, and no text any more",
    ]


def test_words_for_nothing_repeated_rows_and_empty_ones_are_told(tmp_path: Path) -> None:
    film(tmp_path / "a.png")
    rows = [["Accession", "MRN", "Findings", "Impression", "Image", "Datei"]]
    rows += [["1", "P1", "Clear.", "None.", '"a.png"', "1.txt"]] * 2
    rows += [["2", "NULL", "Clear.", "nan", "n/a", "2.txt"], ["", "", "", "", "", ""]]
    rows += [["3", "P3", "Clear.", "None.", "a.png, b.png", "3.txt"]]
    rows += [["4", "P4", "{\\rtf1 Clear.}", "None.", "a.png", "4.txt"]]
    save(tmp_path / "t.csv", rows)
    told: list[tuple[str, ...]] = []
    request = Request(tmp_path / "mine.yaml", noted=lambda *finding: told.append(finding))
    checked = look_at_table(request, tmp_path / "t.csv").checked
    assert checked.patients == 3
    assert [finding for finding in told if finding[0] == "fault"] == [
        (
            "fault",
            "image_not_found",
            f"study 3 (row 5): {tmp_path / 'a.png, b.png'} cannot be found: No such file or "
            "directory; several paths in a cell are separated by ; or |",
        ),
        ("fault", "row_malformed", "t.csv row 6: Findings holds RTF: export it as plain text"),
    ]
    remarks = {code: found.examples for code, found in checked.remarks.items()}
    assert remarks["same_row"] == ["study 1, row 2"]
    assert remarks["no_patient"] == remarks["no_images"] == ["study 2 (row 3)"]
    assert remarks["column_of_reports"] == ["Datei"]


def test_reports_in_files_named_by_study_id(tmp_path: Path) -> None:
    save(tmp_path / "t.csv", [["Study", "Größe"], ["1", "ä"], ["2", "ö"]])
    with pytest.raises(DatasetError, match=r"no file named by Study, such as 1\.txt"):
        look(tmp_path, "t.csv", reports=tmp_path)
    (tmp_path / "1.txt").write_bytes(REPORT.replace("Clear", "Größe").encode("cp1252"))
    looked = look(tmp_path, "t.csv", reports=tmp_path)
    assert [*looked.checked.faults] == ["file_unreadable"]
    assert looked.checked.rejected == 2, "one is not UTF-8, one is missing"
    looked = look(tmp_path, "t.csv", reports=tmp_path, encoding="cp1252")
    assert looked.checked.faults["file_unreadable"].examples[0].startswith("t.csv row 2: 2.txt")
    assert looked.columns
    assert looked.columns.unused == ("Größe",), "the table is UTF-8, the reports are not"
    assert studies(tmp_path, looked)["1"].findings == "Größe lungs."


def test_a_report_is_read_where_findings_and_impression_are_empty(tmp_path: Path) -> None:
    rows = [["Accession", "Findings", "Impression", "Report"], ["1", "Nodule.", "", REPORT]]
    save(tmp_path / "t.csv", [*rows, ["2", "", "", REPORT], ["3", "Nodule.", "New.", ""]])
    looked = look(tmp_path, "t.csv")
    assert looked.checked.remarks["report_not_used"].examples == ["t.csv row 1"]
    found = studies(tmp_path, looked)
    assert {name: (s.findings, s.impression) for name, s in found.items()} == {
        "1": ("Nodule.", None),
        "2": ("Clear lungs.", "No disease."),
        "3": ("Nodule.", "New."),
    }


def test_a_declaration_that_someone_changed_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path / "t.csv", [["id", "sex"], ["1", "f"]])
    looked = look(tmp_path, "t.csv")
    assert looked.values["reports"] is False
    assert "no_text_column" in looked.checked.remarks
    file = tmp_path / "mine.yaml"
    write(looked.values, file)
    require_free(file)
    file.write_text(yaml.safe_dump(looked.values))
    with pytest.raises(DatasetError, match="did not write, or that was changed"):
        require_free(file)
    with pytest.raises(DatasetError, match="perhaps findings was meant"):
        parse_given(["finding=Befund"])
    with pytest.raises(DatasetError, match="80/10/10"):
        parse_split("80/10")
