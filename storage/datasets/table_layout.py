"""What a declaration of the family `table` says of its table: columns, and how they are read."""

from __future__ import annotations

import codecs
import json
import re
import string
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from storage.images.vocabulary import modalities, view_position, view_positions

_BETWEEN_PATHS = re.compile(r"[|;\n]")


class Columns(BaseModel):
    """The column that holds each thing.

    findings, impression: one section each.
    report: a whole report; its sections are read where findings and impression are both empty.
    report_file: the path of a file with a whole report, below `reports` of the layout.
    images: paths of images, several in a cell separated by `|` or `;`, or as a list of JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    study_id: str
    findings: str | None = None
    impression: str | None = None
    report: str | None = None
    report_file: str | None = None
    images: tuple[str, ...] = ()
    patient_id: str | None = None
    split: str | None = None
    view: str | None = None
    image_id: str | None = None
    labels: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """All columns that are named."""
        several = ("images", "labels")
        single = [getattr(self, name) for name in type(self).model_fields if name not in several]
        return [name for name in (*single, *self.images, *self.labels) if name]


class Layout(BaseModel):
    """Where the table is and how it is read.

    table: a CSV, TSV, JSON lines or Parquet file below the data set's folder.
    image: an image's path below the folder, `{column}` standing for a cell of the row and
        `{column:.3}` for its first three characters; a row of which one such cell is empty has
        no image. Where a column holds the paths themselves, `columns.images` names it.
    report_file: a report file's path below `reports`, made like `image`.
    path_prefix: what paths in cells begin with on the machine that wrote the table; left off.
    report_path_prefix: the same of report files; by default that of the images.
    windows_paths: whether the paths in cells have backslashes between folders.
    reports: folder of report files, below the data set's folder.
    encoding, separator: of a table of text.
    report_encoding: of report files that are not UTF-8; by default that of the table.
    split_by_patient: percent of the patients in each split, where the table has no splits. Which
        split a patient is in depends on the patient's id alone, so that it stays when others
        come; a study without a patient counts as a patient.
    views, splits: what the table calls a DICOM view position or a split, to what it is.
    modality: of images whose file does not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: Annotated[str, Field(min_length=1)]
    columns: Columns
    image: str | None = None
    report_file: str | None = None
    path_prefix: str = ""
    report_path_prefix: str | None = None
    windows_paths: bool = False
    reports: str = ""
    encoding: str = "utf-8"
    report_encoding: str | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    split_by_patient: Mapping[str, Annotated[int, Field(ge=0, le=100, strict=True)]] = {}
    modality: str | None = None
    views: Mapping[str, str] = {}
    splits: Mapping[str, str] = {}

    @field_validator("image", "report_file")
    @classmethod
    def _fields_are_columns(cls, value: str | None) -> str | None:
        for name in fields(value):
            if not name or set(name) & set(".[{"):
                raise ValueError("write a column's name between the braces, as in {image_id}.png")
        if value is not None:
            try:
                value.format_map(dict.fromkeys(fields(value), "1"))  # refuses formats not of text
            except KeyError as error:
                raise ValueError("write no braces within braces") from error
            if value.startswith("/") or ".." in value.split("/"):
                raise ValueError("write a path below the data set's folder, which may hold links")
        return value

    @field_validator("encoding", "report_encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            return codecs.lookup(value).name
        except LookupError as error:
            raise ValueError(f"there is no encoding {value!r}: give one such as cp1252") from error

    @field_validator("split_by_patient")
    @classmethod
    def _all_patients(cls, value: Mapping[str, int]) -> Mapping[str, int]:
        if value and sum(value.values()) != 100:
            raise ValueError("the percentages must make 100")
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


def fields(pattern: str | None) -> list[str]:
    """The columns that a pattern of paths names."""
    parsed = string.Formatter().parse(pattern or "")
    return [name for _, name, _, _ in parsed if name is not None]


def paths_in(cell: str) -> list[str]:
    """The paths in a cell of a column of images."""
    if cell.startswith("["):
        try:
            return [name for name in json.loads(cell) if isinstance(name, str) and name]
        except ValueError:
            pass  # a name may begin so
    return [
        name for part in _BETWEEN_PATHS.split(cell) if (name := part.strip().strip('"').strip())
    ]
