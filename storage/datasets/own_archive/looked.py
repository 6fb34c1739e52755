"""What looking through an archive gives, whatever form the archive has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.datasets.declaration import is_usable_in_paths
from storage.datasets.own_archive.checks import Checked, check_studies
from storage.datasets.own_archive.columns import ColumnMap
from storage.datasets.own_archive.declare import draft, shard_size
from storage.datasets.own_archive.request import Request
from storage.datasets.reader import DatasetError
from storage.datasets.rows import TextForm, read_rows
from storage.datasets.table import TableReader

TEXTS = ("findings", "impression", "report", "report_file")
"""What a column may hold of a report's text."""

_SPLIT_NAMES = {
    "train": ("train", "training", "tr"),
    "validate": ("validate", "validation", "valid", "val", "dev"),
    "test": ("test", "testing", "ts", "holdout"),
}
_MOST_SPLITS = 20


@dataclass(frozen=True)
class Looked:
    """An archive as it was understood.

    understood: for people, what was taken for what.
    values: what the declaration says.
    columns: of the table; None of a folder of DICOM studies with text files.
    index: folder that holds the table of a DICOM folder, to be put beside the declaration.
    """

    understood: Mapping[str, str]
    values: Mapping[str, Any]
    checked: Checked
    columns: ColumnMap | None = None
    index: Path | None = None


def check(
    values: dict[str, Any], request: Request, checked: Checked, *, is_own_table: bool = True
) -> dict[str, Any]:
    """Read every study as a build would; the values with the size of shards that fits."""
    declaration = draft(values if is_own_table else _without_images(values), request.file)
    reader = TableReader(declaration, declaration.own_folder())
    check_studies(
        reader,
        checked,
        refuses=request.refuses if values.get("reports", True) else None,
        is_own_table=is_own_table,
        tick=request.progress("checking studies"),
    )
    if checked.has_one_section:
        values = values | {"sections": "any"}
        checked.remarks.pop("one_section", None)
    return values | {"shard_size": shard_size(checked.studies, checked.volumes)}


def _without_images(values: Mapping[str, Any]) -> dict[str, Any]:
    layout = values["layout"]
    columns = {key: column for key, column in layout["columns"].items() if key != "images"}
    return {**values, "layout": {**layout, "columns": columns}}


def splits_of(
    table: Path, form: TextForm, column: str, told: str | None = None
) -> tuple[list[str], dict[str, str]]:
    """The splits of a table's column, and what the table calls those that have another name here.

    A word for training, validation or test is known in several forms. Beside such words, others
    are mistakes; where there are none, every word is a split. A message names the table and column
    as `told`, where they are copies.

    Raises:
        DatasetError: if the column holds too many words to be splits.
    """
    said = Counter[str]()
    for row in read_rows(table, form):
        said[row.cells.get(column, "")] += 1
        if len(said) > _MOST_SPLITS:
            raise DatasetError(
                f"{told or f'{table}: {column}'} was taken for the split, and has more than "
                f"{_MOST_SPLITS} different words: name the right column with --columns split=…, or "
                "use --split"
            )
    said.pop("", None)
    by_word = {word: name for name, words in _SPLIT_NAMES.items() for word in words}
    known = {word: by_word[word.lower()] for word in said if word.lower() in by_word}
    renamed = known or {word: _usable(word) for word in said}
    splits = [name for name in _SPLIT_NAMES if name in renamed.values()] if known else []
    splits = splits or sorted(set(renamed.values())) or ["train"]
    return splits, {word: name for word, name in renamed.items() if word != name}


def remark_unused_reports(
    table: Path, form: TextForm, columns: ColumnMap, checked: Checked
) -> None:
    """Count the rows whose report is not read, since they have findings or an impression too."""
    held = columns.columns
    sections, reports = (
        [str(held[name]) for name in names if name in held] for names in (TEXTS[:2], TEXTS[2:])
    )
    if not (sections and reports):
        return
    for row in read_rows(table, form):
        if any(map(row.cells.get, sections)) and any(map(row.cells.get, reports)):
            checked.remark("report_not_used", f"{table.name} row {row.number}")


def told_splits(percent: Mapping[str, int], splits: Sequence[str], column: str | None) -> str:
    """For people: where the splits come from."""
    if percent:
        shares = ", ".join(f"{split} {share} %" for split, share in percent.items())
        return f"by patient: {shares}"
    if column is None:
        return f"all {splits[0]}; --split 80/10/10 makes three, by patient"
    return f"{', '.join(splits)} (of the column {column})"


def _usable(word: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip("-._")
    return name if is_usable_in_paths(name) else f"split-{name}".rstrip("-")
