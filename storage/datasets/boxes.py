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
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage.datasets.box_fusion import METHOD, fuse
from storage.datasets.declaration import Declaration, checked
from storage.datasets.image_files import ImageFiles
from storage.datasets.image_labels import LabelColumns, LabelError
from storage.datasets.marks import MarkError, box_on_image, described, number, target_of
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row
from storage.gold import Gold, GoldBox, GoldMask
from storage.images.types import ImageDescription
from storage.images.vocabulary import NOT_STATED, view_position
from storage.paths import listing_digest
from storage.records import Box, Mask
from storage.rejects import Reject

_STRICT = ConfigDict(extra="forbid", frozen=True)
_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")


class Source(BaseModel):
    """The tables and images of one split.

    marks, labels: the table of boxes, and that of labels of whole images; either may be left out.
    images: where an image may be: `{image}` stands for its name in the tables, `*` for any folder.
    lists: further splits, each with the text file that names its images, one a line.
    readers: how many people stand behind each box, where no column names them.
    """

    model_config = _STRICT

    split: str
    images: Annotated[tuple[str, ...], Field(min_length=1)]
    marks: str | None = None
    labels: str | None = None
    lists: Mapping[str, str] = {}
    readers: int = 1

    @model_validator(mode="after")
    def _has_a_table(self) -> Source:
        if not (self.marks or self.labels):
            raise ValueError("name a table as `marks`, `labels`, or both")
        return self


class Columns(BaseModel):
    """The columns of the tables of marks.

    corners: x_min, y_min, x_max, y_max.
    sizes: x_min, y_min, width, height.
    runs: a mask as pairs of gap and length, down the columns; a gap counts from the last run's end.
    reader: who drew the box, in tables that say so.
    """

    model_config = _STRICT

    image: str
    label: str | None = None
    reader: str | None = None
    corners: tuple[str, str, str, str] | None = None
    sizes: tuple[str, str, str, str] | None = None
    runs: str | None = None

    @model_validator(mode="after")
    def _has_one_shape(self) -> Columns:
        if sum(given is not None for given in (self.corners, self.sizes, self.runs)) != 1:
            raise ValueError("give one of corners, sizes and runs")
        return self

    def names(self) -> list[str]:
        """Those that every table of marks has."""
        numbers = self.corners or self.sizes or (self.runs,)
        return [name for name in (self.image, self.label, *numbers) if name]


class Layout(BaseModel):
    """How the tables are read.

    label: of every mark, where no column says it.
    nothing: what stands in place of a mark or a label where there is none.
    frame: pixels of a side of the square that boxes are given in; None: the image as it is stored.
    fuse: whether the boxes of several readers are fused.
    patient, view: columns of the table of labels.
    modality: of images whose file does not say.
    """

    model_config = _STRICT

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    columns: Columns | None = None
    label: str | None = None
    nothing: tuple[str, ...] = ()
    frame: Annotated[int, Field(gt=0)] | None = None
    fuse: bool = False
    labels: LabelColumns | None = None
    modality: str | None = None

    @model_validator(mode="after")
    def _fits_its_tables(self) -> Layout:
        if any(source.marks for source in self.sources):
            if self.columns is None:
                raise ValueError("columns: is missing, and there are tables of marks")
            if (self.columns.label is None) == (self.label is None):
                raise ValueError("give either columns.label or one label for all marks")
        if self.labels is None and any(source.labels for source in self.sources):
            raise ValueError("labels: is missing, and there are tables of labels")
        return self


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
        for tables in self._sources:
            for key in tables.keys():  # noqa: SIM118 it is no mapping
                rows = [row for row in tables.marks(key) if not row.fault]
                drawn = [row for row in rows if not _is_nothing(self._layout, row)]
                what = "masks" if self._layout.columns and self._layout.columns.runs else "boxes"
                counts.update({"images": 1, "rows": len(rows), what: len(drawn)})
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
        drawn = _Drawing(self._layout, self._declaration.targets, tables.source, image_id, file)
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


def _is_nothing(layout: Layout, row: Row) -> bool:
    """Whether a row of marks says that there is none."""
    columns = layout.columns
    assert columns is not None  # noqa: S101 there are marks
    given = columns.corners or columns.sizes or (columns.runs or "",)
    cells = [row.cells.get(name, "") for name in given]
    label = row.cells.get(columns.label or "", "")
    return not any(cells) or cells[0] in layout.nothing or label in layout.nothing


class _Drawing:
    """The marks of one image as they are added."""

    def __init__(
        self,
        layout: Layout,
        targets: Mapping[str, str | None],
        source: Source,
        image_id: str,
        file: ImageDescription | None,
    ) -> None:
        self._layout = layout
        self._targets = targets
        self._source = source
        self._image_id = image_id
        self._shape = file.shape if file else None
        self._drawn: dict[str, list[tuple[str | None, Box]]] = {}
        self.masks: list[GoldMask] = []
        self.left_out: list[Reject] = []

    def add(self, row: Row) -> None:
        """Add what a row marks; what cannot be used is left out."""
        columns = self._layout.columns
        if columns is None or _is_nothing(self._layout, row):
            return
        label = self._layout.label or row.cells.get(columns.label or "", "")
        try:
            target = target_of(self._targets, label)
            if columns.runs:
                self._add_mask(label, target, row.cells[columns.runs])
            else:
                reader = row.cells.get(columns.reader or "") or None
                self._drawn.setdefault(label, []).append((reader, self._box(row)))
        except MarkError as error:
            record = f"{label or 'mark'} of row {row.number}"
            self.left_out.append(error.reject(self._image_id, record, self._image_id))

    def _box(self, row: Row) -> Box:
        columns, layout = self._layout.columns, self._layout
        assert columns is not None  # noqa: S101 there are marks
        names = columns.corners or columns.sizes or ()
        x, y, right, bottom = (number(row.cells.get(name, "")) for name in names)
        if columns.sizes:
            right, bottom = x + right, y + bottom
        across, down = self._scale()
        frame = (layout.frame, layout.frame) if layout.frame else None
        corners = (x * across, y * down, right * across, bottom * down)
        return box_on_image(corners, self._shape or frame)

    def _scale(self) -> tuple[float, float]:
        """Pixels of the stored image in a pixel of the frame, along x and y."""
        if self._layout.frame is None or self._shape is None:
            return 1.0, 1.0
        rows, columns = self._shape
        return columns / self._layout.frame, rows / self._layout.frame

    def _add_mask(self, label: str, target: str | None, runs: str) -> None:
        side = self._layout.frame
        shape = (side, side) if side else self._shape
        if shape is None:
            raise MarkError("image_not_found", "the size of the image is not known")
        if self._shape not in (None, shape):
            raise MarkError("mask_wrong_shape", f"the mask is {shape}, the image {self._shape}")
        mask = Mask.of(decode_runs(runs, (shape[0], shape[1])), None)
        count = sum(held.label == label for held in self.masks)
        self.masks.append(
            GoldMask(
                self._image_id, mask, label, target, instance=count, readers=self._source.readers
            )
        )

    def boxes(self) -> tuple[GoldBox, ...]:
        """All boxes, fused where the declaration says so."""
        found = (box for label in self._drawn for box in self._of_label(label))
        return tuple(found)

    def _of_label(self, label: str) -> Iterator[GoldBox]:
        target, drawn = self._targets[label], self._drawn[label]
        named = [(reader, box) for reader, box in drawn if reader is not None]
        if self._layout.fuse and len(named) == len(drawn):
            for instance, fused in enumerate(fuse(named)):
                yield GoldBox(
                    self._image_id,
                    fused.box,
                    label,
                    target,
                    instance=instance,
                    annotator=METHOD,
                    readers=fused.readers,
                )
            return
        for instance, (reader, box) in enumerate(drawn):
            yield GoldBox(
                self._image_id,
                box,
                label,
                target,
                instance=instance,
                annotator=reader,
                readers=self._source.readers,
            )


def decode_runs(runs: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (rows, columns) of pairs of gap and length that run down the columns.

    A gap is counted from the end of the run before (SIIM-ACR pneumothorax), not from the start of
    the image.

    Raises:
        MarkError: if it is no such list, or leads out of the image.
    """
    rows, columns = shape
    try:
        numbers = np.array(runs.split(), np.int64)
    except (ValueError, OverflowError):
        raise MarkError("mark_unreadable", "the runs of the mask are no whole numbers") from None
    if len(numbers) % 2 or (numbers < 0).any():
        raise MarkError("mark_unreadable", "the runs of the mask are no pairs of gap and length")
    ends = np.cumsum(numbers)
    if not len(ends) or ends[-1] > rows * columns:
        raise MarkError("mask_wrong_shape", f"the runs do not fit {columns} × {rows} pixels")
    flat = np.zeros(rows * columns, np.bool_)
    for start, end in zip(ends[0::2], ends[1::2], strict=True):
        flat[start:end] = True
    return flat.reshape(columns, rows).T


def _stem(name: str) -> str:
    """A study's id: the image's name without the suffix of a picture."""
    base = name.rpartition("/")[2]
    for suffix in _SUFFIXES:
        base = base.removesuffix(suffix)
    return base
