"""An archive as one table of studies or images, with the images in files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from storage.datasets.own_archive.checks import Checked
from storage.datasets.own_archive.columns import ColumnMap, understand
from storage.datasets.own_archive.declare import values_of
from storage.datasets.own_archive.looked import (
    TEXTS,
    Looked,
    check,
    remark_unused_reports,
    splits_of,
    told_splits,
)
from storage.datasets.own_archive.places import Places, find_places
from storage.datasets.own_archive.reports import DOCUMENT_SUFFIXES, REPORT_SUFFIXES
from storage.datasets.own_archive.request import Request
from storage.datasets.own_archive.table_form import columns_of, recognize_form, told_form
from storage.datasets.reader import DatasetError
from storage.datasets.rows import TextForm, read_rows
from storage.datasets.table_layout import paths_in

_SUFFIXES = (".dcm", ".png", ".jpg", ".jpeg", ".nii.gz", ".nii")
"""Of image files, tried where a table names them without."""

_PATHS = {_SUFFIXES: "column_of_paths", (*REPORT_SUFFIXES, *DOCUMENT_SUFFIXES): "column_of_reports"}
"""What is told of a column without a use whose cells end so."""

_SAMPLE = 1000
"""Paths that are looked at to find such a suffix."""


def look_at_table(request: Request, table: Path, images: Path | None = None) -> Looked:
    """Understand a table of studies and check everything that it names.

    Args:
        request: its reports are a folder that paths of report files lie below; without a column
            for them, the files are named by study id.
        table: CSV, TSV, JSON lines or Parquet.
        images: what paths of images lie below, where that is not the table's folder.

    Raises:
        DatasetError: if the table cannot be used at all, or is to be split by patients that it does
            not name.
    """
    table, reports, percent = table.absolute(), request.reports, request.percent
    form = recognize_form(table, request.encoding)
    columns = understand(table, columns_of(table, form), request.given)
    if percent:
        if "patient_id" not in columns.columns:
            raise DatasetError(
                f"--split puts whole patients into a split, and no column of {table} is known to "
                "hold the patient: name it with --columns patient_id=…"
                + (f"; not used are {', '.join(columns.unused)}" if columns.unused else "")
            )
        columns = columns.without("split")
    split_column = _one(columns, "split")
    places, of_images = _images(table, form, columns, images)
    # A pattern stands in place of the column that it is made of.
    named = {k: v for k, v in columns.columns.items() if k != "images" or "image" not in of_images}
    layout = {"table": _below(table, places.folder), "columns": named, **of_images}
    layout |= _reports(table, form, columns, reports, places.path_prefix) | _form(form)
    if request.encoding and "reports" in layout:
        layout["report_encoding"] = request.encoding
    splits = list(percent) or ["train"]
    if percent:
        layout["split_by_patient"] = dict(percent)
    elif split_column:
        splits, renamed = splits_of(table, form, split_column)
        layout |= {"splits": renamed} if renamed else {}
    values = values_of(
        request.file.stem,
        layout,
        folder=places.folder.absolute(),
        splits=splits,
        reports=reports is not None or any(name in columns.columns for name in TEXTS),
    )
    checked = Checked(noted=request.noted)
    remark_unused_reports(table, form, columns, checked)
    for suffixes, code in _PATHS.items():
        for column in _columns_of_paths(table, form, columns, suffixes):
            checked.remark(code, column)
    if not values.get("reports", True):
        checked.remark("no_text_column", f"not used: {', '.join(columns.unused) or 'no column'}")
    values = check(values, request, checked)
    understood = {"table": f"{table}, {told_form(form)}"}
    if "images" in columns.columns:
        understood["images below"] = str(places.folder)
    if places.path_prefix:
        understood["left off paths"] = places.path_prefix
    if reports is not None:
        understood["reports below"] = str(reports.absolute())
    understood["splits"] = told_splits(percent, splits, split_column)
    return Looked(understood, values, checked, columns)


def _one(columns: ColumnMap, holds: str) -> str | None:
    column = columns.columns.get(holds)
    return column if isinstance(column, str) else None


def _images(
    table: Path, form: TextForm, columns: ColumnMap, images: Path | None
) -> tuple[Places, dict[str, Any]]:
    """Where the images are, and what the layout says of them."""
    named = list(columns.columns.get("images", ()))

    def paths() -> Iterator[str]:
        rows = read_rows(table, form)
        return (p for row in rows for name in named for p in paths_in(row.cells.get(name, "")))

    if images is not None and not images.is_dir():
        raise DatasetError(f"--images {images}: there is no such folder")
    if not named:
        return Places(images or table.parent), {}
    places = find_places(paths, table.parent, images.absolute() if images else None)
    sample = list(islice(paths(), _SAMPLE))
    if len(named) == 1 and not any((places.folder / path).exists() for path in sample):
        for suffix in _SUFFIXES:
            if any((places.folder / f"{path}{suffix}").is_file() for path in sample):
                return places, {"image": f"{{{named[0]}}}{suffix}"}
    return places, places.layout()


def _columns_of_paths(
    table: Path, form: TextForm, columns: ColumnMap, suffixes: tuple[str, ...]
) -> list[str]:
    """Columns without a use whose cells end as such files do."""
    found = {
        name
        for row in islice(read_rows(table, form), _SAMPLE)
        for name in columns.unused
        for path in paths_in(row.cells.get(name, ""))
        if path.lower().endswith(suffixes)
    }
    return [name for name in columns.unused if name in found]


def _reports(
    table: Path, form: TextForm, columns: ColumnMap, reports: Path | None, prefix: str
) -> dict[str, Any]:
    """What the layout says of the folder of report files; `prefix` is left off paths of images."""
    column = _one(columns, "report_file")
    if column is None:
        return {} if reports is None else _reports_by_id(table, form, columns, reports)

    def paths() -> Iterator[str]:
        return (cell for row in read_rows(table, form) if (cell := row.cells.get(column, "")))

    places = find_places(paths, table.parent, reports.absolute() if reports else None)
    return {
        "reports": str(places.folder.absolute()),
        **({"windows_paths": True} if places.windows_paths else {}),
        **({"report_path_prefix": places.path_prefix} if places.path_prefix != prefix else {}),
    }


def _reports_by_id(
    table: Path, form: TextForm, columns: ColumnMap, reports: Path
) -> dict[str, Any]:
    """What the layout says of report files that are named by the study id.

    Raises:
        DatasetError: if there are none.
    """
    column = str(columns.columns["study_id"])
    sample = [row.cells.get(column, "") for row in islice(read_rows(table, form), _SAMPLE)]
    for suffix in REPORT_SUFFIXES:
        if any((reports / f"{name}{suffix}").is_file() for name in sample if name):
            return {"reports": str(reports.absolute()), "report_file": f"{{{column}}}{suffix}"}
    raise DatasetError(
        f"--reports {reports}: it has no file named by {column}, such as {sample[0]}.txt: name the "
        "column that holds the names of the files, as in --columns report_file=Path"
    )


def _form(form: TextForm) -> dict[str, str]:
    said = {"encoding": form.encoding, "separator": form.separator}
    usual = {"encoding": "utf-8", "separator": ","}
    return {key: value for key, value in said.items() if value and value != usual[key]}


def _below(table: Path, folder: Path) -> str:
    folder = folder.absolute()
    return str(table.relative_to(folder) if table.is_relative_to(folder) else table)
