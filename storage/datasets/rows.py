"""Rows of a table file, one at a time: CSV, TSV, JSON lines (each also gzipped) and Parquet.

Every value is text: identifiers look like numbers and are none.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from storage.datasets.reader import DatasetError

_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
"""NUL, and half characters: what bytes that are not UTF-8 are read as."""


class Row(NamedTuple):
    """A row of a table: its number from 1, the header not counted; its cells by column.

    fault: why the cells cannot be used; None when they can.
    """

    number: int
    cells: dict[str, str]
    fault: str | None = None


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a table in their order; an empty cell and a missing one are empty text.

    Raises:
        DatasetError: if the file cannot be read, or is no table of a known kind.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind not in _KINDS:
        raise DatasetError(f"{path}: a table is one of {', '.join(_KINDS)}, not .{kind}")
    try:
        yield from _KINDS[kind](path)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DatasetError(f"{path} cannot be read: {reason}") from error


def _open(path: Path) -> TextIO:
    how = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    return gzip.open(path, "rt", **how) if path.suffix == ".gz" else path.open("rt", **how)  # type: ignore[call-overload, no-any-return]


def _csv(path: Path) -> Iterator[Row]:
    yield from _separated(path, ",")


def _tsv(path: Path) -> Iterator[Row]:
    yield from _separated(path, "\t")


def _separated(path: Path, separator: str) -> Iterator[Row]:
    with _open(path) as stream:
        lines = csv.reader(stream, delimiter=separator)
        try:
            header = next(lines, [])
            if twice := sorted({name for name in header if header.count(name) > 1}):
                raise DatasetError(f"{path} has two columns {twice[0]}")
            for number, cells in enumerate(filter(None, lines), start=1):
                yield _row(number, header, cells)
        except csv.Error as error:
            raise DatasetError(f"{path}, line {lines.line_num}: {error}") from error


def _row(number: int, header: list[str], cells: list[str]) -> Row:
    known = dict(zip(header, cells, strict=False))
    if len(cells) != len(header):
        return Row(number, known, f"{len(cells)} cells stand under {len(header)} columns")
    return _decoded(Row(number, known))


def _decoded(row: Row) -> Row:
    for name, cell in row.cells.items():
        if not (cell.isascii() and "\0" not in cell) and _NO_TEXT.search(cell):
            return row._replace(fault=f"{name} is not UTF-8 text")
    return row


def _json_lines(path: Path) -> Iterator[Row]:
    with _open(path) as stream:
        for number, line in enumerate(filter(str.strip, stream), start=1):
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Row(number, {}, f"it is not JSON: {error}")
                continue
            if isinstance(values, dict):
                yield _decoded(Row(number, {name: _text(v) for name, v in values.items()}))
            else:
                yield Row(number, {}, "it is not a JSON object")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        batches = parquet.ParquetFile(path).iter_batches(batch_size=1000)
        rows = (values for batch in batches for values in batch.to_pylist())
        for number, values in enumerate(rows, start=1):
            yield Row(number, {name: _text(value) for name, value in values.items()})
    except pa.ArrowException as error:
        raise DatasetError(f"{path} is not a Parquet file that can be read: {error}") from error


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


_KINDS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "csv": _csv,
    "tsv": _tsv,
    "jsonl": _json_lines,
    "parquet": _parquet,
}
