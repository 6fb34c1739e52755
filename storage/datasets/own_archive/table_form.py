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
from storage.datasets.own_archive.columns import is_known_name
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
_LINES_ABOVE = 10
"""Lines in which the header is looked for; a title with a date and a query takes some."""

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
    """The one that gives the header most cells.

    Raises:
        DatasetError: if other lines stand above the header.
    """
    with _opened(table) as stream:
        start = stream.read(_HEADER)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(start).removeprefix("\ufeff")
    if text.lower().startswith("sep="):
        raise DatasetError(
            f"{table} begins with the line `{text.splitlines()[0]}`, which only Excel "
            "understands: delete this line"
        )
    rows = {separator: _first_rows(text, separator) for separator in SEPARATORS}
    found = max(rows, key=lambda separator: len(rows[separator][0]) if rows[separator] else 0)
    widest = max(rows, key=lambda separator: max(map(len, rows[separator]), default=0))
    _require_header_first(table, rows[found] if found == widest else rows[widest])
    return found


def _first_rows(text: str, separator: str) -> list[list[str]]:
    """The cells that are not empty, of the first lines that are not."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if cells := [cell for cell in map(str.strip, row) if cell]:
                rows.append(cells)
            if len(rows) == _LINES_ABOVE:
                break
    except csv.Error:
        pass  # the row is told when it is read
    return rows


def _require_header_first(table: Path, rows: list[list[str]]) -> None:
    """Refuse a title above the header: a line without known names, or with far fewer cells."""
    if not rows or any(map(is_known_name, rows[0])):
        return
    named = [row for row in rows[1:] if sum(map(is_known_name, row)) > 1]
    header = named[0] if named else max(rows, key=len)
    if named or 2 * len(rows[0]) <= len(header):
        raise DatasetError(
            f"{table} begins with `{rows[0][0][:60]}`, which is no name of a column, and "
            f"`{header[0][:60]}` with {len(header)} cells comes below: delete the lines above the "
            "names of the columns"
        )


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
