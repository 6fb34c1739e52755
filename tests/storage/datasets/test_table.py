"""The family `table`, on real files of every kind it reads."""

import csv
import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from storage.datasets.declaration import read_declaration
from storage.datasets.reader import DatasetError, DatasetReader, SourceRecord, Study
from storage.rejects import Reject
from tests.storage.datasets.test_declarations import write
from tests.storage.images.dicom_files import write_ct_slice

COLUMNS = {
    "study_id": "study",
    "findings": "findings",
    "impression": "impression",
    "patient_id": "patient",
    "split": "fold",
    "view": "projection",
    "labels": ["Edema", "Nodule"],
}
LAYOUT = {
    "columns": COLUMNS,
    "image": "files/p{patient:.2}/{image}.png",
    "modality": "DX",
    "views": {"Frontal": "PA"},
    "splits": {"training": "train"},
}
HEADER = "study patient fold findings impression image projection Edema Nodule".split()
ROWS = [
    ["001", "p10", "training", "Left, upper\nnodule “x”.", "Nodule.", "a", "Frontal", "0", "1.0"],
    ["002", "p11", "test", "Clear.", "", "", "", "", "-1"],
    ["001", "p10", "training", "", "", "b", "Lateral", "", ""],
]


def table(folder: Path, rows: list[list[str]], name: str = "t.csv") -> Path:
    separator = "\t" if ".tsv" in name else ","
    opened = gzip.open if name.endswith(".gz") else open
    with opened(folder / name, "wt", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=separator).writerows([HEADER, *rows])
    return folder / name


def reader(folder: Path, name: str = "t.csv", **changed: Any) -> DatasetReader:
    layout = LAYOUT | {"table": name} | changed
    file = write(folder, layout=layout, splits=["train", "test"])
    return read_declaration(file).open(folder)


def read(source: DatasetReader) -> list[Study | Reject]:
    return list(source.read(source.records()))


def test_studies_with_sections_images_views_splits_and_labels(tmp_path: Path) -> None:
    table(tmp_path, ROWS)
    (tmp_path / "files" / "pp1").mkdir(parents=True)
    Image.new("L", (30, 20)).save(tmp_path / "files" / "pp1" / "a.png")
    source = reader(tmp_path)
    of_patients = [SourceRecord("train", "001", "p10"), SourceRecord("test", "002", "p11")]
    assert [*source.records()] == of_patients
    first, second = read(source)
    assert isinstance(first, Study)
    assert isinstance(second, Study)
    assert (first.findings, first.impression) == ("Left, upper\nnodule “x”.", "Nodule.")
    assert (first.patient_id, first.source) == ("p10", "archive")
    assert first.labels == {"Edema": 0, "Nodule": 1}
    assert second.labels == {"Nodule": -1}
    seen, missing = first.images
    assert (seen.image_id, seen.view, seen.modality, seen.shape) == ("a", "PA", "DX", (20, 30))
    assert (missing.image_id, missing.view, missing.shape) == ("b", "LATERAL", None)
    assert (second.images, second.impression) == ((), None)


@pytest.mark.parametrize("kind", ["tsv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_every_kind_of_table_reads_the_same(tmp_path: Path, kind: str) -> None:
    wanted = read(reader(tmp_path, table(tmp_path, ROWS).name))
    name = f"t.{kind}"
    cells = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(cells), tmp_path / name)
    elif "jsonl" in kind:
        opened = gzip.open if name.endswith(".gz") else open
        with opened(tmp_path / name, "wt") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in cells)
    else:
        table(tmp_path, ROWS, name)
    assert read(reader(tmp_path, name)) == wanted


BAD = [
    (["", "p12", "test", "Clear.", "Clear.", "", "", "", ""], "study_id_missing"),
    (["003", "p12", "test"], "row_malformed"),
    (["004", "p12", "fold 7", "Clear.", "Clear.", "", "", "", ""], "split_unknown"),
    (["005", "p12", "test", "Clear.", "Clear.", "", "", "maybe", ""], "label_unreadable"),
    (["002", "p11", "test", "Not clear.", "", "", "", "", ""], "rows_disagree"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_bad_row_is_rejected_and_counted(tmp_path: Path, row: list[str], reason: str) -> None:
    table(tmp_path, [*ROWS, row])
    source = reader(tmp_path)
    results = read(source)
    assert len(results) == len([*source.records()])
    [reject] = [r for r in results if isinstance(r, Reject)]
    assert reject.reason == reason
    assert "t.csv row" in reject.detail
    assert "4" in reject.record
    assert "\n" not in reject.detail


def test_an_image_whose_name_no_file_can_have_is_one_that_is_not_there(tmp_path: Path) -> None:
    table(tmp_path, [["001", "p10", "test", "Clear.", "Clear.", "x" * 300, "", "", ""]])
    [study] = read(reader(tmp_path))
    assert isinstance(study, Study)
    assert study.images[0].shape is None
    assert reader(tmp_path).fingerprint()


def test_bytes_that_are_not_utf8_reject_their_row_only(tmp_path: Path) -> None:
    file = table(tmp_path, ROWS)
    file.write_bytes(file.read_bytes() + "009,p,test,Fièvre,,,,,\n".encode("latin-1"))
    *studies, reject = read(reader(tmp_path))
    assert len(studies) == 2
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.detail) == (
        "row_malformed",
        "t.csv row 4: findings is not UTF-8 text",
    )


@pytest.mark.parametrize("line", ["{", "[1]", "7", '{"study": "\\ud83d"}', '{"study": "\\u0000"}'])
def test_a_line_that_is_not_a_json_object(tmp_path: Path, line: str) -> None:
    good = json.dumps(dict(zip(HEADER, ROWS[0], strict=True)))
    (tmp_path / "t.jsonl").write_text(f"{good}\n{line}\n")
    study, reject = read(reader(tmp_path, "t.jsonl"))
    assert isinstance(study, Study)
    assert isinstance(reject, Reject)
    assert reject.reason == "row_malformed"


def test_a_missing_column_is_named_with_the_near_one(tmp_path: Path) -> None:
    table(tmp_path, ROWS)
    source = reader(tmp_path, columns=COLUMNS | {"findings": "finding"})
    with pytest.raises(DatasetError, match="no column `finding`, perhaps `findings` was meant; it"):
        list(source.records())
    with pytest.raises(DatasetError, match="no column `path`; it has study"):
        list(reader(tmp_path, image="{path}").records())


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "holds no rows"),
        ("t.csv", b"study,study\n1,2\n", "has two columns study"),
        ("t.csv", b'study\n1\n"2', "a quotation mark in the row of line 3 is never closed"),
        ("t.csv", b"study\n" + b'"' + b"a\n" * 10**6, "the row of line 2 is never closed"),
        ("t.csv", b"study;fold\n1;test\n", "its cells are separated by semicolons, not commas"),
        ("t.tsv", b"study,fold\n1,test\n", "its cells are separated by commas, not tabs"),
        ("t.csv", "study\n1\n".encode("utf-16"), "it seems, UTF-16: save it as UTF-8"),
        ("t.csv", "study\n1\n".encode("utf-16-le"), "it seems, UTF-16: save it as UTF-8"),
        (
            "t.jsonl.gz",
            gzip.compress("{}".encode("utf-16"), mtime=0),
            "it seems, UTF-16: save it as UTF-8",
        ),
        ("t.csv.gz", b"study\n1\n", "cannot be read"),
        ("t.csv.gz", gzip.compress(b"study\n1\n", mtime=0)[:-2], "cannot be read"),
        ("t.csv.gz", gzip.compress(b"study\n1\n", mtime=0)[:-8] + bytes(8), "CRC check failed"),
        ("t.parquet", b"study\n1\n", "is not a Parquet file"),
        ("t.xlsx", b"", "a table is one of csv, tsv, jsonl, parquet, txt, not .xlsx"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        list(reader(tmp_path, name).records())
    assert words in str(caught.value)
    with pytest.raises(DatasetError, match=r"none\.csv cannot be read: No such file"):
        list(reader(tmp_path, "none.csv").records())


@pytest.mark.parametrize("position", range(40, 400, 13))
def test_a_damaged_gzipped_table_is_refused_before_any_work(tmp_path: Path, position: int) -> None:
    rows = [[str(n), "p", "test", f"Nodule {n * n}.", "", "", "", "", ""] for n in range(100)]
    file = table(tmp_path, rows, "t.csv.gz")
    data = bytearray(file.read_bytes())
    data[position] ^= 8
    file.write_bytes(data)
    with pytest.raises(DatasetError, match=r"t\.csv\.gz"):
        list(reader(tmp_path, "t.csv.gz").records())


def test_a_damaged_row_group_of_parquet_is_refused_before_any_work(tmp_path: Path) -> None:
    cells = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
    many = pa.Table.from_pylist(cells * 100)
    file = tmp_path / "t.parquet"
    parquet.write_table(many, file, row_group_size=50, write_page_checksum=True)
    data = bytearray(file.read_bytes())
    column = parquet.ParquetFile(file).metadata.row_group(4).column(3)
    data[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DatasetError, match="is not a Parquet file that can be read"):
        list(reader(tmp_path, "t.parquet").records())


@pytest.mark.parametrize(
    "long",
    ["a" * 1_100_000, '"' + "a,\n" * 400_000 + '"', '"' + 'a""' * 600_000 + '"', "a" * 17_000_000],
)
def test_a_cell_that_is_too_long_costs_its_row_alone(tmp_path: Path, long: str) -> None:
    file = table(tmp_path, ROWS[:1])
    after = '002,p11,test,"Clear, 5""",,,,,\r\n'
    file.write_text(file.read_text() + f"007,p12,test,{long},,,,,\r\n" + after, newline="")
    first, last, reject = sorted(read(reader(tmp_path)), key=lambda r: isinstance(r, Reject))
    assert isinstance(first, Study)
    assert isinstance(last, Study)
    assert last.findings == 'Clear, 5"'
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.record) == ("too_large", "t.csv row 2")
    assert len(reject.detail) < 200


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_value_that_is_too_long_costs_its_row_alone(tmp_path: Path, kind: str) -> None:
    cells = [dict(zip(HEADER, row, strict=True)) for row in ROWS[:2]]
    cells[0]["findings"] = "a" * 1_100_000
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(cells), tmp_path / "t.parquet")
    else:
        lines = [json.dumps(row) for row in cells]
        (tmp_path / "t.jsonl").write_text("\n".join([*lines, "7" * 17_000_000]))
    rejects = [r for r in read(reader(tmp_path, f"t.{kind}")) if isinstance(r, Reject)]
    assert {reject.reason for reject in rejects} == {"too_large"}
    assert len(rejects) == (2 if kind == "jsonl" else 1)


def test_quotation_marks_that_are_not_doubled_cost_their_row_alone(tmp_path: Path) -> None:
    file = table(tmp_path, ROWS)
    file.write_text(file.read_text() + '003,p,test,"It is "so".",,,,,\n004,p,test,5" tube,,,,,\n')
    *studies, last, reject = sorted(read(reader(tmp_path)), key=lambda r: isinstance(r, Reject))
    assert len(studies) == 2
    assert isinstance(last, Study)
    assert last.findings == '5" tube'
    assert isinstance(reject, Reject)
    assert reject.detail.startswith("t.csv row 4: lines 6 to 6: ")


@pytest.mark.parametrize("line", ['{"study": "1", "study": "2"}', '{"study": NaN}'])
def test_json_that_programs_read_differently(tmp_path: Path, line: str) -> None:
    good = json.dumps(dict(zip(HEADER, ROWS[0], strict=True)))
    (tmp_path / "t.jsonl").write_text(f"{good}\n{line}\n")
    _, reject = read(reader(tmp_path, "t.jsonl"))
    assert isinstance(reject, Reject)
    assert reject.reason == "row_malformed"


def test_values_of_parquet_that_are_no_text(tmp_path: Path) -> None:
    cells = {name: [cell] for name, cell in zip(HEADER, ROWS[1], strict=True)}
    values = {
        "Nodule": [float("nan")],
        "Edema": [1.0],
        "fold": [b"test"],
        "image": [date(2020, 1, 2)],
    }
    parquet.write_table(pa.table(cells | values), tmp_path / "t.parquet")
    [study] = read(reader(tmp_path, "t.parquet", image="{image}.png"))
    assert isinstance(study, Study)
    assert study.labels == {"Edema": 1}
    assert study.images[0].image_id == "2020-01-02"


def test_spaces_around_cells_and_columns_and_an_index_without_a_name(tmp_path: Path) -> None:
    header = ",".join([*(f"{name} " for name in HEADER), "", ""])
    rows = ["001,p10,test ,Clear.,,,, 1,,0,0", " 001 ,p10,test,,Clear.,,,1 , ,1,0"]
    (tmp_path / "t.csv").write_text("\n".join(["", header, *rows]))
    [study] = read(reader(tmp_path))
    assert isinstance(study, Study)
    assert (study.study_id, study.findings, study.impression) == ("001", "Clear.", "Clear.")
    assert study.labels == {"Edema": 1}


@pytest.mark.parametrize("cell", ["../../x", "/etc/hostname", "a/../../../../x"])
def test_an_image_outside_the_folder_is_left_out_and_told(tmp_path: Path, cell: str) -> None:
    (tmp_path / "set").mkdir()
    rows = [["001", "p", "test", "Clear.", "", image, "", "", ""] for image in ("b", cell)]
    table(tmp_path / "set", rows)
    (tmp_path / "x").write_text("secret")
    [study] = read(reader(tmp_path / "set", image="{image}"))
    assert isinstance(study, Study)
    assert [image.image_id for image in study.images] == ["b"]
    [reject] = study.left_out
    assert (reject.study_id, reject.reason) == ("001", "path_outside_source")


def test_shards_do_not_read_the_table_again(tmp_path: Path) -> None:
    rows = [[str(n), "p", "test", f"Nodule {n}.", "", "", "", "", ""] for n in range(20)]
    file = table(tmp_path, rows)
    source = reader(tmp_path)
    records = [*source.records()]
    file.unlink()
    studies = [study for record in records for study in source.read([record])]
    assert [study.findings for study in studies if isinstance(study, Study)] == [
        f"Nodule {n}." for n in range(20)
    ]


def test_two_images_of_one_name_need_a_column_that_tells_them_apart(tmp_path: Path) -> None:
    table(tmp_path, ROWS)
    [reject, _] = read(reader(tmp_path, image="{projection}/same.png"))
    assert isinstance(reject, Reject)
    assert reject.reason == "image_id_ambiguous"
    told = COLUMNS | {"image_id": "projection"}
    [study, _] = read(reader(tmp_path, image="{projection}/same.png", columns=told))
    assert isinstance(study, Study)
    assert [image.image_id for image in study.images] == ["Frontal", "Lateral"]


def test_the_fingerprint_follows_the_table_its_images_and_the_declaration(tmp_path: Path) -> None:
    table(tmp_path, ROWS)
    seen = {reader(tmp_path).fingerprint(), reader(tmp_path).fingerprint()}
    assert len(seen) == 1
    (tmp_path / "files" / "pp1").mkdir(parents=True)
    Image.new("L", (3, 2)).save(tmp_path / "files" / "pp1" / "a.png")
    seen.add(reader(tmp_path).fingerprint())
    table(tmp_path, ROWS[:2])
    seen.add(reader(tmp_path).fingerprint())
    seen.add(reader(tmp_path, modality="CR").fingerprint())
    assert len(seen) == 4


def test_what_lies_beside_the_slices_of_a_series_is_counted(tmp_path: Path) -> None:
    table(tmp_path, ROWS[:2])
    series = tmp_path / "files" / "pp1" / "a"
    series.mkdir(parents=True)
    for z in range(3):
        write_ct_slice(series / f"{z}.dcm", np.zeros((2, 2), np.int16), (0, 0, z))
    localizer = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_ct_slice(series / "scout.dcm", np.zeros((9, 9), np.int16), **localizer)
    study, _ = read(reader(tmp_path, image="files/p{patient:.2}/{image}"))
    assert isinstance(study, Study)
    assert study.images[0].shape == (2, 2, 3)
    (left_out,) = study.left_out
    assert (left_out.reason, left_out.image_id) == ("not_part_of_series", "a")
    assert left_out.detail == "scout.dcm is a localizer"
