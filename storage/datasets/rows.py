"""Rows of a table file, one at a time: CSV, TSV, JSON lines (each also gzipped) and Parquet.

Every value is text without the spaces around it: identifiers look like numbers and are none. What a
spreadsheet puts around a text so that it is not taken for a number is left off.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from storage.archives import DAMAGE, what_is_wrong
from storage.datasets.reader import LARGEST_REPORT, DatasetError

_LONGEST_LINE = 16 * LARGEST_REPORT
"""Characters of a line in memory at once."""

csv.field_size_limit(LARGEST_REPORT)  # for the whole process; Python's own is 131,072

_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
"""NUL, and half characters: what bytes that are not UTF-8 are read as."""

_PROTECTED = re.compile(r"""="(?P<formula>(?:[^"]|"")*)"|'(?P<quoted>\d[\d./-]*)""")
"""A text as spreadsheets protect it: ="001", or '001."""

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}


class Row(NamedTuple):
    """A row of a table: its number from 1, the header not counted; its cells by column.

    fault: why the cells cannot be used; None when they can.
    too_large: whether the fault is a cell or a line that is longer than any report.
    """

    number: int
    cells: dict[str, str]
    fault: str | None = None
    too_large: bool = False


class TextForm(NamedTuple):
    """How a CSV or TSV file is written.

    encoding: as Python names it; only ones that keep ASCII as it is, and UTF-16.
    separator: of cells; None for commas in a .csv, and tabs in a .tsv or .txt.
    """

    encoding: str = "utf-8"
    separator: str | None = None


USUAL = TextForm()


def read_rows(path: Path, form: TextForm = USUAL) -> Iterator[Row]:
    """The rows of a table in their order; an empty cell and a missing one are empty text.

    The last checksum of a gzipped table stands at its end: rows count for nothing if the iteration
    does not come to its end.

    Raises:
        DatasetError: if the file cannot be read, is damaged, or is no table of a known kind.
    """
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind not in _KINDS:
        raise DatasetError(f"{path}: a table is one of {', '.join(_KINDS)}, not .{kind}")
    try:
        yield from _KINDS[kind](path, form)
    except DAMAGE as error:
        raise DatasetError(f"{path} cannot be read: {what_is_wrong(error)}") from error


def _csv(path: Path, form: TextForm) -> Iterator[Row]:
    yield from _separated(path, form.separator or ",", form.encoding)


def _tsv(path: Path, form: TextForm) -> Iterator[Row]:
    yield from _separated(path, form.separator or "\t", form.encoding)


def _separated(path: Path, separator: str, encoding: str) -> Iterator[Row]:
    with _open(path, encoding) as stream:
        rows = _cells(path, _Lines(stream), separator)
        header = next(rows, [])
        if isinstance(header, _Fault):
            raise DatasetError(f"{path}, its header: {header.words}")
        names = [_unprotected(name.strip()) for name in header]
        _require_header(path, names, separator)
        for number, cells in enumerate(rows, start=1):
            if isinstance(cells, _Fault):
                yield Row(number, {}, *cells)
            elif any(map(str.strip, cells)):  # spreadsheets write separators alone below the last
                yield _row(number, names, cells)


def _require_header(path: Path, names: list[str], separator: str) -> None:
    if twice := _twin(filter(None, names)):
        raise DatasetError(f"{path} has two columns {twice}")
    for other, word in SEPARATORS.items():
        if len(names) == 1 and other in names[0]:
            raise DatasetError(
                f"{path} has one column, {names[0][:80]!r}: its cells are separated by {word}, not "
                f"{SEPARATORS[separator]}; a .csv has commas, a .tsv tabs"
            )


class _Fault(NamedTuple):
    """Why a row cannot be read; whether it is too large."""

    words: str
    too_large: bool = False


class _TooLongError(Exception):
    """A line or cell that is longer than what is read."""


class _Lines(Iterator[str]):
    """The lines of a file for `csv.reader`, which joins those of one row by quotation marks.

    begun, number: the line that the row began with, and the last one read, from 1.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._whole = True
        self._quotes = 0
        self.number = 0
        self.begun = 1

    def __next__(self) -> str:
        if not (line := self._read()):
            raise StopIteration
        if not self._whole:
            raise _TooLongError(f"the line has more than {_LONGEST_LINE:,} characters")
        return line

    def begin_row(self) -> None:
        """Called before each row."""
        self.begun = self.number + 1
        self._quotes = 0

    def skip_line(self) -> None:
        """Go to the end of a line that was too long."""
        while not self._whole:
            self._read()

    def skip_row(self) -> bool:
        """Go to the row's end, where all its quotation marks are closed; False if there is none."""
        self.skip_line()
        while self._quotes % 2:
            if not self._read():
                return False
            self.skip_line()
        return True

    def _read(self) -> str:
        self.number += self._whole
        line = self._stream.readline(_LONGEST_LINE)
        self._whole = len(line) < _LONGEST_LINE or line.endswith(("\n", "\r"))
        self._quotes += line.count('"')
        return line


def _cells(path: Path, lines: _Lines, separator: str) -> Iterator[list[str] | _Fault]:
    """The cells of each row that is not empty, or why they cannot be read."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        lines.begin_row()
        try:
            if cells := next(reader):
                yield cells
        except StopIteration:
            return
        except (_TooLongError, csv.Error) as error:
            too_large = isinstance(error, _TooLongError) or "limit" in str(error)
            closed = lines.skip_row() if too_large else "end of data" not in str(error)
            if not closed:
                raise DatasetError(
                    f"{path}: a quotation mark in the row of line {lines.begun} is never closed"
                ) from error
            yield _Fault(f"lines {lines.begun} to {lines.number}: {error}", too_large)


def _row(number: int, header: list[str], said: list[str]) -> Row:
    cells = list(map(str.strip, said))
    whole = "".join(cells)
    if "=" in whole or "'" in whole:
        cells = list(map(_unprotected, cells))
    if len(cells) == len(header) and "" not in header:
        return _checked(Row(number, dict(zip(header, cells, strict=True))))
    pairs = list(zip(header, cells, strict=False))
    known = {name: cell for name, cell in pairs if name}
    # numbers without a name are an index that pandas wrote, as a rule
    if any(any(map(str.isalpha, cell)) for name, cell in pairs if not name):
        fault = "text stands under a column without a name: are quotation marks missing in the row?"
        return Row(number, known, fault)
    without = header[len(cells) :]
    if len(cells) > len(header) or any(without):  # a column without a name may end before others
        return Row(number, known, f"{len(cells)} cells stand under {len(header)} columns")
    return _checked(Row(number, known))


def _unprotected(cell: str) -> str:
    """A cell without what a spreadsheet put around it to keep it a text."""
    if cell[:1] in ("=", "'") and (found := _PROTECTED.fullmatch(cell)):
        return (found["quoted"] or (found["formula"] or "").replace('""', '"')).strip()
    return cell


def _checked(row: Row) -> Row:
    whole = "".join(row.cells.values())
    if len(whole) <= LARGEST_REPORT and whole.isascii() and "\0" not in whole:
        return row
    for name, cell in row.cells.items():
        if len(cell) > LARGEST_REPORT:
            fault = f"{name} has more than {LARGEST_REPORT:,} characters"
            return row._replace(cells={}, fault=fault, too_large=True)
        if _NO_TEXT.search(cell):
            return row._replace(fault=f"{name} is not UTF-8 text")
    return row


def _json_lines(path: Path, form: TextForm) -> Iterator[Row]:
    with _open(path, form.encoding) as stream:
        for number, line in enumerate(_not_empty(_Lines(stream)), start=1):
            if isinstance(line, _Fault):
                yield Row(number, {}, *line)
                continue
            try:
                values = json.loads(
                    line, object_pairs_hook=_without_twins, parse_constant=_no_number
                )
            except (ValueError, RecursionError) as error:
                yield Row(number, {}, f"it is not JSON: {error}")
                continue
            if isinstance(values, dict):
                yield _checked(Row(number, {name: _text(v) for name, v in values.items()}))
            else:
                yield Row(number, {}, "it is not a JSON object")


def _not_empty(lines: _Lines) -> Iterator[str | _Fault]:
    while True:
        lines.begin_row()
        try:
            if (line := next(lines)).strip():
                yield line
        except StopIteration:
            return
        except _TooLongError as error:
            lines.skip_line()
            yield _Fault(str(error), too_large=True)


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if twice := _twin(name for name, _ in pairs):
        raise ValueError(f"it has {twice} twice")
    return dict(pairs)


def _twin(names: Iterable[str]) -> str | None:
    return next((name for name, times in Counter(names).items() if times > 1), None)


def _no_number(word: str) -> object:
    raise ValueError(f"{word} is no JSON value")


def _parquet(path: Path, _: TextForm) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path, page_checksum_verification=True)
        if twice := _twin(file.schema_arrow.names):
            raise DatasetError(f"{path} has two columns {twice}")
        batches = file.iter_batches(batch_size=1000)
        rows = (values for batch in batches for values in batch.to_pylist())
        for number, values in enumerate(rows, start=1):
            yield _checked(Row(number, {name: _text(value) for name, value in values.items()}))
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DatasetError(
            f"{path} is not a Parquet file that can be read: {what_is_wrong(error)}"
        ) from error


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        return _unprotected(value.decode(errors="surrogateescape").strip())
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, default=str)
    return _unprotected(str(value).strip())


def _open(path: Path, encoding: str) -> TextIO:
    binary = gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # noqa: SIM115
    if encoding.lower().replace("_", "-") not in _UTF8:
        return io.TextIOWrapper(binary, encoding, "surrogateescape", newline="")
    begins = binary.peek(4)[:4]
    if begins.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in begins:
        binary.close()
        raise DatasetError(f"{path} is not UTF-8 text but, it seems, UTF-16: save it as UTF-8")
    return io.TextIOWrapper(binary, "utf-8-sig", "surrogateescape", newline="")


_UTF8 = ("utf-8", "utf8")

_KINDS: dict[str, Callable[[Path, TextForm], Iterator[Row]]] = {
    "csv": _csv,
    "tsv": _tsv,
    "jsonl": _json_lines,
    "parquet": _parquet,
    "txt": _tsv,
}
