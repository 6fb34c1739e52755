"""How a table of a user is written: its encoding, and what separates its cells."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, cast

from storage.archives import DAMAGE, what_is_wrong
from storage.datasets.reader import DatasetError
from storage.datasets.rows import SEPARATORS, USUAL, TextForm, read_rows

_OFFICE = {
    b"PK\x03\x04": "an Excel file, or another that is zipped",
    b"\xd0\xcf\x11\xe0": "an Excel file",
}
_TEXT_KINDS = ("csv", "tsv", "txt", "jsonl")
_NOT_UTF8 = (
    "save it as UTF-8 (in Excel: `CSV UTF-8`), or say what it is: --encoding cp1252 for files of "
    "Windows in western Europe and America"
)
_NOT_AS_SAID = "give the encoding that it was saved in"

_READ_AT_ONCE = 1 << 20  # bytes
_HEADER = 1 << 16  # bytes of which the first line is looked for
_FIRST_ROWS = 1000
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def recognize_form(table: Path, encoding: str | None = None) -> TextForm:
    """How a table is written.

    Args:
        table: the file.
        encoding: of a file that is neither UTF-8 nor UTF-16 with its mark, as the user names it.
            One that is UTF-8 is read as such all the same: by chance no other text is.

    Raises:
        DatasetError: if it is an Excel file, is not in this encoding, or cannot be read; the
            message says what to do.
    """
    if encoding is not None:
        _require_known(encoding)
    try:
        with table.open("rb") as stream:
            start = stream.read(4)
        kind = table.name.lower().removesuffix(".gz").rpartition(".")[2]
        if (what := _OFFICE.get(start)) or kind in ("xls", "xlsx", "ods", "numbers"):
            raise DatasetError(
                f"{table} is {what or 'a spreadsheet'}: in Excel, save it as `CSV UTF-8`, and give "
                "that file"
            )
        if kind == "json":
            raise DatasetError(f"{table}: write one JSON object a line, in a file named .jsonl")
        if kind not in _TEXT_KINDS:
            return USUAL
        used = "utf-16" if start.startswith(_UTF16) else "utf-8"
        if (line := _undecodable(table, used)) and encoding is not None:
            used, line = encoding, _undecodable(table, encoding)
        if line:
            fix = _NOT_UTF8 if used == "utf-8" else _NOT_AS_SAID
            raise DatasetError(f"{table} is not {used} text, line {line}: {fix}")
        return TextForm(used, None if kind == "jsonl" else _separator(table, used))
    except DAMAGE as error:
        raise DatasetError(f"{table} cannot be read: {what_is_wrong(error)}") from error


def _require_known(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise DatasetError(f"--encoding {encoding}: there is none of this name") from error


def _undecodable(table: Path, encoding: str) -> int | None:
    """The first line that is not text in this encoding; None where the whole file is."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    for block in _blocks(table):
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            return line + block[: error.start].count(b"\n")
        line += block.count(b"\n")
    return None


def _blocks(table: Path) -> Iterator[bytes]:
    with _opened(table) as stream:
        while block := stream.read(_READ_AT_ONCE):
            yield block


def _opened(table: Path) -> IO[bytes]:
    if table.suffix.lower() == ".gz":
        return cast("IO[bytes]", gzip.open(table))
    return table.open("rb")


def _separator(table: Path, encoding: str) -> str:
    """The one that gives the header most cells."""
    with _opened(table) as stream:
        start = stream.read(_HEADER)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(start).removeprefix("\ufeff")
    if text.lower().startswith("sep="):
        raise DatasetError(
            f"{table} begins with the line `{text.splitlines()[0]}`, which only Excel "
            "understands: delete this line"
        )

    def cells(separator: str) -> int:
        try:
            return len(next(csv.reader(io.StringIO(text), delimiter=separator), []))
        except csv.Error:
            return 0

    return max(SEPARATORS, key=cells)


def columns_of(table: Path, form: TextForm) -> list[str]:
    """The columns of a table: those of its first rows, as JSON lines may leave some out."""
    names: dict[str, None] = {}
    for row in islice(read_rows(table, form), _FIRST_ROWS):
        names |= dict.fromkeys(row.cells)
    if not names:
        raise DatasetError(f"{table} holds no rows")
    return list(names)


def told_form(form: TextForm) -> str:
    """For people: how a table is written."""
    if form.separator is None:
        return form.encoding
    return f"{form.encoding}, separated by {SEPARATORS[form.separator]}"
