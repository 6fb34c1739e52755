"""What the family `boxes` must know of a data set's tables: its keys in a declaration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage.datasets.image_labels import LabelColumns

_STRICT = ConfigDict(extra="forbid", frozen=True)


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
        return [name for name in (self.image, self.label, *self.numbers) if name]

    @property
    def numbers(self) -> tuple[str, ...]:
        """Those that hold the shape of a mark."""
        return self.corners or self.sizes or (self.runs or "",)


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
