"""The family `table`: one table of studies and their images, the images beside it.

A row is a study, or an image of one: rows with the same study id are one study, and must agree on
everything but the image. `layout` in the declaration says which column holds what.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from storage.datasets.declaration import Declaration, checked
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row
from storage.images.loading import describe_image
from storage.images.types import ImageDescription, ImageError
from storage.images.vocabulary import NOT_STATED, modalities, view_position, view_positions
from storage.paths import OutsideError, listing_digest, path_below
from storage.rejects import Reject

LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": None}
"""What a label's cell may hold: present, absent, uncertain, or that nothing is known."""


class Columns(BaseModel):
    """The column that holds each thing; the text columns hold one section each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study_id: str
    findings: str | None = None
    impression: str | None = None
    patient_id: str | None = None
    split: str | None = None
    view: str | None = None
    image_id: str | None = None
    labels: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """All columns that are named."""
        single = [getattr(self, name) for name in type(self).model_fields if name != "labels"]
        return [name for name in (*single, *self.labels) if name]


class Layout(BaseModel):
    """Where the table is and how it is read.

    table: a CSV, TSV, JSON lines or Parquet file below the data set's folder.
    image: an image's path below the folder, `{column}` standing for a cell of the row and
        `{column:.3}` for its first three characters; a row of which one such cell is empty has
        no image.
    views, splits: what the table calls a DICOM view position or a split, to what it is.
    modality: of images whose file does not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: Annotated[str, Field(min_length=1)]
    columns: Columns
    image: str | None = None
    modality: str | None = None
    views: Mapping[str, str] = {}
    splits: Mapping[str, str] = {}

    @field_validator("image")
    @classmethod
    def _fields_are_columns(cls, value: str | None) -> str | None:
        for name in _fields(value):
            if not name or set(name) & set(".[{"):
                raise ValueError("write a column's name between the braces, as in {image_id}.png")
        if value is not None:
            try:
                value.format_map(dict.fromkeys(_fields(value), "1"))  # refuses formats not of text
            except KeyError as error:
                raise ValueError("write no braces within braces") from error
            if value.startswith("/") or ".." in value.split("/"):
                raise ValueError("write a path below the data set's folder, which may hold links")
        return value

    @field_validator("modality")
    @classmethod
    def _known_modality(cls, value: str | None) -> str | None:
        if value is not None:
            _require_known(value, modalities(), "modality that is read")
        return value

    @field_validator("views")
    @classmethod
    def _known_views(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for view in value.values():
            _require_known(view_position(view) or view, view_positions(), "view position")
        return value


def _require_known(word: str, known: Collection[str], what: str) -> None:
    if word not in known:
        near = get_close_matches(word.upper(), known, 1)
        meant = "".join(f", perhaps {name} was meant" for name in near)
        raise ValueError(f"{word!r} is no {what}{meant}: choose from {', '.join(sorted(known))}")


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
        if self._layout.columns.split is None and len(declaration.splits) > 1:
            raise DatasetError(
                f"{declaration.file}: layout.columns.split: is missing, and there are "
                f"{len(declaration.splits)} splits: name the column that tells them apart"
            )

    def records(self) -> Iterator[SourceRecord]:
        """A record per study id in the order of first mention, and one per row without an id."""
        patient = self._layout.columns.patient_id or ""
        for key in self._index.keys():  # noqa: SIM118 it is no mapping
            first = self._index.rows(key)[0]
            yield SourceRecord(self._split(first), key, first.cells.get(patient) or None)

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and the table, and of the images' paths, sizes and times."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        with self._table.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
        keys = self._index.keys()
        paths = (self._image_path(row) for key in keys for row in self._index.rows(key))
        digest.update(listing_digest(path for path in paths if isinstance(path, Path)).encode())
        return digest.hexdigest()

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The study of each record; rows that are faulty or contradict each other are rejected."""
        for record in records:
            rows = self._index.rows(record.key)
            try:
                yield self._study(record, rows)
            except _RowError as error:
                numbers = ", ".join(str(row.number) for row in rows)
                where = f"{self._layout.table} row {numbers}"
                yield Reject(record.key, where, error.reason, f"{where}: {error}")

    @cached_property
    def _index(self) -> RowIndex:
        named = (*self._layout.columns.names(), *_fields(self._layout.image))
        return RowIndex(self._table, self._key, named)

    def _key(self, row: Row) -> str:
        """The study id; for a row that has none, or cannot be used, its number."""
        return (not row.fault and row.cells.get(self._layout.columns.study_id)) or (
            f"row {row.number}"
        )

    def _split(self, row: Row) -> str:
        """The split that a row's record is counted in: the first one where it says none of ours."""
        said = self._stated_split(row)
        return said if said in self._declaration.splits else self._declaration.splits[0]

    def _stated_split(self, row: Row) -> str:
        column = self._layout.columns.split
        if column is None:
            return self._declaration.splits[0]
        said = row.cells.get(column, "")
        return self._layout.splits.get(said, said)

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
        of_study = (columns.findings, columns.impression, columns.patient_id, columns.split)
        values = {name: self._shared(rows, name) for name in (*of_study, *columns.labels) if name}
        paths = [(row, self._image_path(row)) for row in rows]
        inside = [(row, path) for row, path in paths if isinstance(path, Path)]
        images, beside = self._images(record.key, inside)
        return Study(
            study_id=record.key,
            findings=values.get(columns.findings or "") or None,
            impression=values.get(columns.impression or "") or None,
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

    def _shared(self, rows: list[Row], column: str) -> str:
        """What the rows of a study say in a column, where any does."""
        said = sorted({row.cells.get(column, "").strip() for row in rows} - {""})
        if len(said) > 1:
            raise _RowError("rows_disagree", f"rows of one study differ in {column}")
        return said[0] if said else ""

    def _images(
        self, study_id: str, rows: Sequence[tuple[Row, Path]]
    ) -> tuple[tuple[StudyImage, ...], tuple[Reject, ...]]:
        """The images of a study, and what lies beside the slices of a series and is no part of it.

        The same image in two rows is one.
        """
        found: dict[Path, StudyImage] = {}
        beside: list[Reject] = []
        for row, path in rows:
            if path in found:
                continue
            file = _described(path)
            image = found[path] = self._image(row, path, file)
            beside += (
                Reject(study_id, image.image_id, "not_part_of_series", said, image.image_id)
                for said in (file.left_out if file else ())
            )
        names = [image.image_id for image in found.values()]
        if len(set(names)) < len(names):
            raise _RowError(
                "image_id_ambiguous",
                "two images have one id: name a column that tells them apart as columns.image_id",
            )
        return tuple(found.values()), tuple(beside)

    def _image_path(self, row: Row) -> Path | OutsideError | None:
        pattern = self._layout.image
        if pattern is None or row.fault or not all(row.cells.get(n) for n in _fields(pattern)):
            return None
        try:
            return path_below(self._source, pattern.format_map(row.cells))
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


def _described(path: Path) -> ImageDescription | None:
    try:
        return describe_image(path)
    except ImageError:
        return None  # the stage that opens it sets it aside with its reason


def _fields(pattern: str | None) -> list[str]:
    """The columns that a pattern names."""
    parsed = string.Formatter().parse(pattern or "")
    return [name for _, name, _, _ in parsed if name is not None]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def _labels(values: Mapping[str, str], names: Sequence[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        said = values[name]
        if said not in LABELS:
            raise _RowError("label_unreadable", f"{name} is {said!r}, not 1, 0, -1 or empty")
        value = LABELS[said]
        if value is not None:
            yield name, value
