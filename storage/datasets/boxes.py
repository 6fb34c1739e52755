"""The family `boxes`: radiographs with boxes, or masks, that people drew, in tables beside them.

A study is one image; there are no reports. `layout` in the declaration says which tables and
columns there are, how corners are given, and whether several readers' boxes are fused.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from storage.datasets.boxes_layout import Layout, Source
from storage.datasets.declaration import Declaration, checked
from storage.datasets.drawn_marks import DrawnMarks, marks_nothing
from storage.datasets.image_files import ImageFiles
from storage.datasets.image_labels import LabelError
from storage.datasets.marks import described
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row, read_rows
from storage.gold import Gold
from storage.images.vocabulary import NOT_STATED, view_position
from storage.paths import listing_digest
from storage.rejects import Reject

_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")


class BoxesReader:
    """Reads the tables once, as streams; those rows of a shard are in memory at once."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._layout = checked(Layout, declaration.layout, declaration.file, "layout")
        self._sources = [_Tables(source, one, self._layout) for one in self._layout.sources]

    def records(self) -> Iterator[SourceRecord]:
        """A record an image, in the order of the tables, and one a row that cannot be used."""
        for tables in self._sources:
            for key in tables.keys():  # noqa: SIM118 it is no mapping
                yield SourceRecord(tables.split(key), key, tables.patient(key))

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and tables, and of the images' paths, sizes and times."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        for tables in self._sources:
            for file in tables.files:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            paths = map(tables.images.find, tables.keys())
            digest.update(listing_digest(paths).encode())
        return digest.hexdigest()

    def census(self) -> Mapping[str, int]:
        """How many images, rows of marks, and boxes or masks there are, as drawn."""
        counts: Counter[str] = Counter()
        columns = self._layout.columns
        for tables in self._sources:
            counts["images"] += sum(1 for _ in tables.keys())  # noqa: SIM118 it is no mapping
            if columns is None or tables.source.marks is None:
                continue
            for row in tables.mark_rows():
                counts["rows"] += not row.fault
                drawn = not row.fault and not marks_nothing(self._layout, columns, row)
                counts["masks" if columns.runs else "boxes"] += drawn
        return counts

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The study of each image; marks that cannot be used are left out of it."""
        for record in records:
            tables = next(tables for tables in self._sources if record.key in tables)
            yield self._study(tables, record.key)

    def _study(self, tables: _Tables, key: str) -> Study | Reject:
        marks = tables.marks(key)
        labels = tables.labels(key)
        for row in (*marks, *labels):
            if row.fault or not key:
                reason = "too_large" if row.too_large else "row_malformed"
                return Reject(key, key, reason, f"{key}: {row.fault or 'no image is named'}")
        study_id = image_id = _stem(key)
        path = tables.images.find(key)
        file = described(path)
        drawn = DrawnMarks(self._layout, self._declaration.targets, tables.source, image_id, file)
        for row in marks:
            drawn.add(row)
        try:
            values = self._layout.labels.values(labels) if self._layout.labels else {}
        except LabelError as error:
            return Reject(study_id, key, "label_unreadable", f"{key}: {error}")
        view = tables.view(labels) or (file.view if file else None)
        of_file = file.modality if file and file.modality != NOT_STATED else None
        image = StudyImage(
            image_id,
            str(path),
            of_file or self._layout.modality,
            view,
            file.shape if file else None,
            file.spacing_mm if file else None,
        )
        return Study(
            study_id,
            None,
            None,
            self._declaration.source,
            tables.patient(key),
            (image,),
            values,
            Gold(boxes=drawn.boxes(), masks=tuple(drawn.masks)),
            tuple(drawn.left_out),
        )


class _Tables:
    """The tables and images of one source."""

    def __init__(self, folder: Path, source: Source, layout: Layout) -> None:
        self.source = source
        self._folder = folder
        self._layout = layout
        self.images = ImageFiles(folder, source.images)

    @property
    def files(self) -> list[Path]:
        """Every table and list."""
        named = (self.source.marks, self.source.labels, *self.source.lists.values())
        return [_table(self._folder, name) for name in named if name]

    def keys(self) -> Iterator[str]:
        """Every image once: those with labels, then those with marks alone."""
        if self._labels is not None:
            yield from self._labels.keys()
        if self._marks is not None:
            labelled = self._labels
            for key in self._marks.keys():  # noqa: SIM118 it is no mapping
                if labelled is None or key not in labelled:
                    yield key

    def __contains__(self, key: str) -> bool:
        return any(index is not None and key in index for index in (self._marks, self._labels))

    def marks(self, key: str) -> list[Row]:
        return self._marks.rows(key) if self._marks is not None else []

    def mark_rows(self) -> Iterator[Row]:
        """All rows of the table of marks, in its order."""
        return read_rows(_table(self._folder, self.source.marks or ""))

    def labels(self, key: str) -> list[Row]:
        return self._labels.rows(key) if self._labels is not None else []

    def split(self, key: str) -> str:
        """The list that names the image, else the source's own split."""
        for split, names in self._lists.items():
            if key in names:
                return split
        return self.source.split

    def patient(self, key: str) -> str | None:
        return self._cell(
            self.labels(key), self._layout.labels.patient if self._layout.labels else None
        )

    def view(self, rows: Sequence[Row]) -> str | None:
        said = self._cell(rows, self._layout.labels.view if self._layout.labels else None)
        return view_position(said) if said else None

    def _cell(self, rows: Sequence[Row], column: str | None) -> str | None:
        return (rows[0].cells.get(column) or None) if rows and column else None

    @cached_property
    def _marks(self) -> RowIndex | None:
        columns = self._layout.columns
        if self.source.marks is None or columns is None:
            return None
        table = _table(self._folder, self.source.marks)
        reader = [columns.reader] if columns.reader else []
        return RowIndex(table, _key(table, columns.image), columns.names(), reader)

    @cached_property
    def _labels(self) -> RowIndex | None:
        labels = self._layout.labels
        if self.source.labels is None or labels is None:
            return None
        table = _table(self._folder, self.source.labels)
        return RowIndex(table, _key(table, labels.image), labels.required(), labels.optional())

    @cached_property
    def _lists(self) -> dict[str, frozenset[str]]:
        """The images that lists name; some 100 bytes each."""
        named = {}
        for split, name in self.source.lists.items():
            file = _table(self._folder, name)
            lines = file.read_text(encoding="utf-8-sig").splitlines()
            named[split] = frozenset(line.strip() for line in lines)
        return named


def _table(folder: Path, pattern: str) -> Path:
    """The file that a name with `*` stands for; the last of several versions."""
    found = [p for p in sorted(folder.glob(pattern)) if p.is_file() and p.name[:1] != "."]
    if not found:
        raise DatasetError(
            f"{folder} has no {pattern}: give the folder as it was downloaded with --source"
        )
    return found[-1]


def _key(table: Path, column: str) -> Callable[[Row], str]:
    return lambda row: (not row.fault and row.cells.get(column)) or f"{table.name} row {row.number}"


def _stem(name: str) -> str:
    """A study's id: the image's name without the suffix of a picture."""
    base = name.rpartition("/")[2]
    for suffix in _SUFFIXES:
        base = base.removesuffix(suffix)
    return base
