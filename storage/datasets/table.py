"""The family `table`: one table of studies and their images, the images beside it.

A row is a study, or an image of one: rows with the same study id are one study, and must agree on
everything but the image. `layout` in the declaration says which column holds what.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from storage.datasets.declaration import Declaration, checked
from storage.datasets.label_values import LABEL_VALUES
from storage.datasets.plain_text import decode, form_of
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.report_files import UnusableFileError, read_report_file
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row, TextForm
from storage.datasets.table_layout import Layout, fields, paths_in
from storage.images.loading import describe_image
from storage.images.types import ImageDescription, ImageError
from storage.images.vocabulary import NOT_STATED, view_position
from storage.paths import OutsideError, listing_digest, path_below
from storage.rejects import Reject
from storage.sections import findings_and_impression

_SPREADSHEET_ERROR = re.compile(r"#[A-ZÄÖÜ/0]{3,}[?!]|#N/A|#NV")
"""What Excel and its like write for a cell that they cannot work out, as a text that begins with =
or - may become.
"""


_NOTHING = frozenset({"nan", "null", "none", "n/a", "na", "<na>", "nat"})
"""Words that databases and programs write into a cell that holds nothing, in lower case."""

_BEGINNING = 64
"""Bytes of a report's file that tell whether it is plain text."""


class _RowError(Exception):
    """Rows that are no study: a reason code and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class TableReader:
    """Reads the table once, as a stream; of its rows, those of a shard are in memory at once."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._layout = checked(Layout, declaration.layout, declaration.file, "layout")
        self._table = source / self._layout.table
        self._source = source
        by_patient = self._layout.split_by_patient
        if unknown := sorted(by_patient.keys() - set(declaration.splits)):
            raise DatasetError(
                f"{declaration.file}: layout.split_by_patient: {unknown[0]} is none of `splits`"
            )
        if self._layout.columns.split is None and len(declaration.splits) > 1 and not by_patient:
            raise DatasetError(
                f"{declaration.file}: layout.columns.split: is missing, and there are "
                f"{len(declaration.splits)} splits: name the column that tells them apart"
            )

    @property
    def names_patients(self) -> bool:
        """Whether a column holds the patient."""
        return self._layout.columns.patient_id is not None

    def records(self) -> Iterator[SourceRecord]:
        """A record per study id in the order of first mention, and one per row without an id."""
        patient = self._layout.columns.patient_id or ""
        for key in self._index.keys():  # noqa: SIM118 it is no mapping
            first = self.rows(key)[0]
            yield SourceRecord(self._split(first), key, first.cells.get(patient) or None)

    def rows(self, key: str) -> list[Row]:
        """The rows of a record, with the columns that the layout names."""
        return [_without_words_for_nothing(row) for row in self._index.rows(key)]

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and the table, and of the images' paths, sizes and times."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        with self._table.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
        digest.update(listing_digest(self._files()).encode())
        return digest.hexdigest()

    def image_paths(self) -> Iterator[Path]:
        """Where each image of the table is, or would be; none is opened."""
        for row in self._all_rows():
            yield from (path for path in self._image_paths(row) if isinstance(path, Path))

    def _files(self) -> Iterator[Path]:
        """The images and report files of all rows."""
        for row in self._all_rows():
            paths = (*self._image_paths(row), self._report_path(row))
            yield from (path for path in paths if isinstance(path, Path))

    def _all_rows(self) -> Iterator[Row]:
        return (row for key in self._index.keys() for row in self.rows(key))  # noqa: SIM118

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The study of each record; rows that are faulty or contradict each other are rejected."""
        for record in records:
            rows = self.rows(record.key)
            try:
                yield self._study(record, rows)
            except _RowError as error:
                numbers = ", ".join(str(row.number) for row in rows)
                where = f"{self._table.name} row {numbers}"
                yield Reject(record.key, where, error.reason, f"{where}: {error}")

    @cached_property
    def _index(self) -> RowIndex:
        patterns = (*fields(self._layout.image), *fields(self._layout.report_file))
        named = (*self._layout.columns.names(), *patterns)
        form = TextForm(self._layout.encoding, self._layout.separator)
        return RowIndex(self._table, self._key, named, form=form)

    def _key(self, row: Row) -> str:
        """The study id; for a row that has none, or cannot be used, its number."""
        cells = _without_words_for_nothing(row).cells
        return (not row.fault and cells.get(self._layout.columns.study_id)) or f"row {row.number}"

    def _split(self, row: Row) -> str:
        """The split that a row's record is counted in: the first one where it says none of ours."""
        said = self._stated_split(row)
        return said if said in self._declaration.splits else self._declaration.splits[0]

    def _stated_split(self, row: Row) -> str:
        column = self._layout.columns.split
        if self._layout.split_by_patient:
            return self._split_of_patient(row)
        if column is None:
            return self._declaration.splits[0]
        said = row.cells.get(column, "")
        return self._layout.splits.get(said, said)

    def _split_of_patient(self, row: Row) -> str:
        columns = self._layout.columns
        patient = row.cells.get(columns.patient_id or "") or self._key(row)
        place = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8]) % 100
        for split, percent in self._layout.split_by_patient.items():
            place -= percent
            if place < 0:
                return split
        raise AssertionError("the percentages make 100")

    def _study(self, record: SourceRecord, rows: list[Row]) -> Study:
        first, columns = rows[0], self._layout.columns
        if first.fault:
            raise _RowError("too_large" if first.too_large else "row_malformed", first.fault)
        if not first.cells.get(columns.study_id):
            raise _RowError("study_id_missing", f"{columns.study_id} is empty")
        split = self._stated_split(first)
        if split not in self._declaration.splits:
            known = ", ".join(self._declaration.splits)
            raise _RowError("split_unknown", f"the split is {split!r}, not one of {known}")
        of_study = (
            columns.findings,
            columns.impression,
            columns.report,
            columns.report_file,
            columns.patient_id,
            columns.split,
        )
        values = {
            name: self._shared(record.key, rows, name)
            for name in (*of_study, *columns.labels)
            if name
        }
        findings, impression = self._sections(rows, values)
        paths = [(row, path) for row in rows for path in self._image_paths(row)]
        inside = [(row, path) for row, path in paths if isinstance(path, Path)]
        images, beside = self._images(record.key, inside)
        return Study(
            study_id=record.key,
            findings=findings,
            impression=impression,
            source=self._declaration.source,
            patient_id=values.get(columns.patient_id or "") or None,
            images=images,
            labels=dict(_labels(values, columns.labels)),
            left_out=tuple(
                Reject(record.key, f"image of row {row.number}", "path_outside_source", str(path))
                for row, path in paths
                if isinstance(path, OutsideError)
            )
            + beside,
        )

    def _sections(
        self, rows: Sequence[Row], values: Mapping[str, str]
    ) -> tuple[str | None, str | None]:
        """Findings and impression: of their own columns, or both of the whole report."""
        columns = self._layout.columns
        findings, impression = (_text(values, c) for c in (columns.findings, columns.impression))
        if findings or impression:  # never half of each, which may contradict the other
            return findings, impression
        return findings_and_impression(_text(values, columns.report) or self._report_of_file(rows))

    def _report_of_file(self, rows: Sequence[Row]) -> str:
        named = [path for row in rows if (path := self._report_path(row)) is not None]
        path = named[0] if named else None
        if path is None:
            return ""
        if isinstance(path, OutsideError):
            raise _RowError("path_outside_source", str(path))
        try:
            data = read_report_file(path)
        except UnusableFileError as error:
            raise _RowError(error.reason, str(error)) from error
        if form := form_of(data[:_BEGINNING].decode("latin-1")):
            raise _RowError("file_unreadable", f"{path.name} is {form}: save it as plain text")
        try:
            return decode(data, self._layout.report_encoding or self._layout.encoding)
        except UnicodeDecodeError as error:
            raise _RowError(
                "file_unreadable",
                f"{path.name} is not UTF-8 text: name its encoding as layout.report_encoding",
            ) from error

    def _report_path(self, row: Row) -> Path | OutsideError | None:
        cell = row.cells.get(self._layout.columns.report_file or "", "")
        pattern = self._layout.report_file
        if pattern is not None and all(row.cells.get(name) for name in fields(pattern)):
            cell = pattern.format_map(row.cells)
        if row.fault or not cell:
            return None
        prefix = self._layout.report_path_prefix
        path = self._as_path(cell, self._layout.path_prefix if prefix is None else prefix)
        return self._below(self._source / self._layout.reports, path)

    def _shared(self, study_id: str, rows: list[Row], column: str) -> str:
        """What the rows of a study say in a column, where any does."""
        said = sorted({row.cells.get(column, "").strip() for row in rows} - {""})
        if len(said) > 1:
            raise _RowError("rows_disagree", f"rows of study {study_id} differ in {column}")
        return said[0] if said else ""

    def _images(
        self, study_id: str, rows: Sequence[tuple[Row, Path]]
    ) -> tuple[tuple[StudyImage, ...], tuple[Reject, ...]]:
        """The images of a study, and what is none of them.

        That is what lies beside the slices of a series and is no part of it, and what is no file.
        The same image in two rows is one.
        """
        found: dict[Path, StudyImage] = {}
        beside: list[Reject] = []
        for row, path in rows:
            if path in found:
                continue
            if _is_device(path):
                where, said = f"image of row {row.number}", f"{path} is neither a file nor a folder"
                beside.append(Reject(study_id, where, "image_unreadable", said))
                continue
            file = _described(path)
            image = found[path] = self._image(row, path, file)
            beside += (
                Reject(study_id, image.image_id, "not_part_of_series", said, image.image_id)
                for said in (file.left_out if file else ())
            )
        if self._layout.columns.images and _are_ambiguous(found.values()):
            found = {
                path: replace(image, image_id=str(path.relative_to(self._source)))
                for path, image in found.items()
            }
        if _are_ambiguous(found.values()):
            raise _RowError(
                "image_id_ambiguous",
                "two images have one id: name a column that tells them apart as columns.image_id",
            )
        return tuple(found.values()), tuple(beside)

    def _image_paths(self, row: Row) -> list[Path | OutsideError]:
        """Where the images of a row are, by the pattern and by the columns of paths."""
        if row.fault:
            return []
        named = [
            self._as_path(p, self._layout.path_prefix)
            for c in self._layout.columns.images
            for p in paths_in(row.cells.get(c, ""))
        ]
        pattern = self._layout.image
        if pattern is not None and all(row.cells.get(name) for name in fields(pattern)):
            named.insert(0, pattern.format_map(row.cells))
        return [self._below(self._source, name) for name in named]

    def _as_path(self, cell: str, prefix: str) -> str:
        """A path as this machine writes it, without what it began with on another."""
        path = cell.removeprefix(prefix)
        return path.replace("\\", "/") if self._layout.windows_paths else path

    def _below(self, folder: Path, name: str) -> Path | OutsideError:
        try:
            return path_below(folder, name)
        except OutsideError as error:
            return error

    def _image(self, row: Row, path: Path, file: ImageDescription | None) -> StudyImage:
        """An image as its file and the table describe it; where both do, the table counts."""
        columns = self._layout.columns
        stated = row.cells.get(columns.view or "", "")
        stated_view = view_position(self._layout.views.get(stated, stated))
        of_file = file.modality if file and file.modality != NOT_STATED else None
        return StudyImage(
            image_id=row.cells.get(columns.image_id or "") or _stem(path),
            uri=str(path),
            modality=of_file or self._layout.modality,
            view=stated_view or (file.view if file else None),
            shape=file.shape if file else None,
            spacing_mm=file.spacing_mm if file else None,
        )


def _without_words_for_nothing(row: Row) -> Row:
    """A row whose cells are empty where a program wrote a word for that."""
    if not any(cell.lower() in _NOTHING for cell in row.cells.values()):
        return row
    cells = {n: "" if cell.lower() in _NOTHING else cell for n, cell in row.cells.items()}
    return row._replace(cells=cells)


def _are_ambiguous(images: Collection[StudyImage]) -> bool:
    return len({image.image_id for image in images}) < len(images)


def _is_device(path: Path) -> bool:
    """Whether it is a pipe or the like, reading which may never end."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # as a missing file
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _described(path: Path) -> ImageDescription | None:
    try:
        return describe_image(path)
    except ImageError:
        return None  # the stage that opens it sets it aside with its reason


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def _text(values: Mapping[str, str], column: str | None) -> str | None:
    """What a column of text says; None where it says nothing."""
    said = values.get(column or "", "")
    if _SPREADSHEET_ERROR.fullmatch(said):
        raise _RowError(
            "row_malformed",
            f"{column} holds {said}, an error of a spreadsheet, and no text any more",
        )
    if form := form_of(said):
        raise _RowError("row_malformed", f"{column} holds {form}: export it as plain text")
    return said or None


def _labels(values: Mapping[str, str], names: Sequence[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        said = values[name]
        if said not in LABEL_VALUES:
            raise _RowError("label_unreadable", f"{name} is {said!r}, not 1, 0, -1 or empty")
        value = LABEL_VALUES[said]
        if value is not None:
            yield name, value
