"""Tables of studies: CSV, TSV, JSON lines, gzipped ones and Parquet, damaged."""

import csv
import gzip
import io
import json
from functools import cache
from pathlib import Path

import pyarrow as pa
from hypothesis.strategies import SearchStrategy
from pyarrow import parquet

from storage.datasets.declaration import read_declaration
from storage.datasets.reader import LARGEST_REPORT, Study
from storage.rejects import Reject
from tests.fuzz.edits import Damaged, damaged, edited
from tests.fuzz.studies import read_studies, same_or_rejected
from tests.fuzz.trials import Kind
from tests.storage.datasets.test_declarations import write

_COLUMNS = {
    "study_id": "study",
    "findings": "findings",
    "impression": "impression",
    "patient_id": "patient",
    "split": "fold",
    "labels": ["Edema"],
}
_HEADER = ("study", "patient", "fold", "findings", "impression", "image", "Edema")
_STUDIES = 30
_ROWS = [
    (
        f"{number:03}",
        f"p{number // 2}",
        ("train", "test")[number % 2],
        f"Heart size, “{number}” mm, is\nnormal.",
        "No acute disease." if number % 3 else "",
        f"image-{number}",
        ("1", "0", "-1", "")[number % 4],
    )
    for number in range(_STUDIES)
]
_PLACES = range(120)
"""Mostly of the header."""
_PIECES = (
    b'"',
    b'""',
    b",",
    b"\t",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"../../outside",
    b"/etc/hostname",
    b"NaN",
    b"1e999",
    b"[" * 5000,
    b'{"a":1,"a":2}\n',
    b"x" * (LARGEST_REPORT + 1),
    b"\n" * 1000,
)


def inputs() -> SearchStrategy[Damaged]:
    """Damaged tables."""
    return damaged(_tables(), _PLACES, _PIECES)


def outcome(given: Damaged, folder: Path) -> str | None:
    """Read the studies; the checksum of a gzipped table lets no other ones pass."""
    intact = _intact(folder)
    data = edited(_tables()[given.original], given.edits)
    studies, rejects = _read(folder, given.original, data)
    for study in studies:
        for image in study.images:
            path = Path(image.uri).resolve()
            assert path.is_relative_to(folder.resolve()), f"outside: {image.uri}"
    if given.original.endswith(".gz"):
        return same_or_rejected(studies, rejects, intact)
    return rejects[0].reason if rejects else None


def _read(folder: Path, kind: str, data: bytes) -> tuple[list[Study], list[Reject]]:
    (folder / f"t.{kind}").write_bytes(data)
    layout = {"table": f"t.{kind}", "columns": _COLUMNS, "image": "files/{image}.png"}
    return read_studies(
        read_declaration(write(folder, layout=layout, splits=["train", "test"])).open(folder)
    )


@cache
def _intact(folder: Path) -> list[Study]:
    studies, rejects = _read(folder, "csv", _tables()["csv"])
    assert (len(studies), len(rejects)) == (_STUDIES, 0)
    return studies


@cache
def _tables() -> dict[str, bytes]:
    """The same studies as each kind of table."""
    rows = [dict(zip(_HEADER, row, strict=True)) for row in _ROWS]
    json_lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), buffer, write_page_checksum=True)
    tables = {"csv": _separated(","), "tsv": _separated("\t"), "jsonl": json_lines}
    zipped = {f"{kind}.gz": gzip.compress(data, mtime=0) for kind, data in tables.items()}
    return {**tables, **zipped, "parquet": buffer.getvalue()}


def _separated(separator: str) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator).writerows([_HEADER, *_ROWS])
    return stream.getvalue().encode()


KIND = Kind("tables", inputs, outcome)
