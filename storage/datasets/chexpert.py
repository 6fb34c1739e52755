"""CheXpert (Irvin et al., AAAI 2019): 14 labels of chest radiographs, and no report.

`train.csv` has a row an image, with the labels that a labeler found in the study's report; those of
`valid.csv` were given by radiologists. Its paths begin with the name of the release's folder
(`CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg`), which may be the folder that is
read, or stand in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from storage.datasets.declaration import Declaration, checked
from storage.datasets.image_labels import LabelColumns, LabelError
from storage.datasets.marks import described
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row
from storage.images.vocabulary import view_position
from storage.paths import OutsideError, listing_digest, path_below
from storage.rejects import Reject

PATH, FRONTAL, PROJECTION = "Path", "Frontal/Lateral", "AP/PA"


class Layout(BaseModel):
    """The table of each split, gzipped or not, and the labels.

    tables: file by split; a split whose file is not there has no studies.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tables: Mapping[str, str]
    labels: LabelColumns


class ChexpertReader:
    """Reads the tables of the splits; an image is opened by nothing but its header."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._layout = checked(Layout, declaration.layout, declaration.file, "layout")
        self._source = source

    def records(self) -> Iterator[SourceRecord]:
        """A record a study, such as `patient00001/study1`."""
        for split, index in self._tables.items():
            for key in index.keys():  # noqa: SIM118 it is no mapping
                yield SourceRecord(split, key, key.partition("/")[0])

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and tables, and of the images' paths, sizes and times."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        for index in self._tables.values():
            with index.table.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
            rows = (row for key in index.keys() for row in index.rows(key))  # noqa: SIM118
            paths = (self._path(row) for row in rows)
            digest.update(listing_digest(path for path in paths if path is not None).encode())
        return digest.hexdigest()

    def census(self) -> Mapping[str, int]:
        """How many images the tables name."""
        return {"images": sum(len(index) for index in self._tables.values())}

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The study of each record with all its views."""
        for record in records:
            rows = self._tables[record.split].rows(record.key)
            fault = next((row for row in rows if row.fault or "/" not in record.key), None)
            if fault:
                reason = "too_large" if fault.too_large else "row_malformed"
                detail = fault.fault or f"{PATH} is {fault.cells.get(PATH)!r}"
                yield Reject(record.key, record.key, reason, f"row {fault.number}: {detail}")
                continue
            try:
                values = self._layout.labels.values(rows)
            except LabelError as error:
                yield Reject(record.key, record.key, "label_unreadable", str(error))
                continue
            yield Study(
                record.key,
                None,
                None,
                self._declaration.source,
                record.patient_id,
                tuple(self._images(rows)),
                values,
                left_out=tuple(self._outside(record.key, rows)),
            )

    def _images(self, rows: Iterable[Row]) -> Iterator[StudyImage]:
        for row in rows:
            if (path := self._path(row)) is None:
                continue
            file = described(path)
            side = row.cells.get(PROJECTION) or row.cells.get(FRONTAL, "")
            yield StudyImage(
                "/".join(path.with_suffix("").parts[-3:]),
                str(path),
                "DX",
                view_position(side),
                file.shape if file else None,
            )

    def _outside(self, study_id: str, rows: Iterable[Row]) -> Iterator[Reject]:
        for row in rows:
            if self._path(row) is None:
                where, named = f"image of row {row.number}", row.cells[PATH][:200]
                yield Reject(study_id, where, "path_outside_source", named)

    def _path(self, row: Row) -> Path | None:
        """The image of a row, below the folder that is read or that of the release in it."""
        named = row.cells.get(PATH, "")
        release, _, inside = named.partition("/")
        try:
            above = path_below(self._source, named)
            return above if (self._source / release).is_dir() else path_below(self._source, inside)
        except OutsideError:
            return None

    @cached_property
    def _tables(self) -> dict[str, RowIndex]:
        labels, found = self._layout.labels, {}
        for split, name in self._layout.tables.items():
            files = sorted((*self._source.glob(f"{name}*"), *self._source.glob(f"*/{name}*")))
            if files:
                columns = [*labels.required(), FRONTAL, PROJECTION]
                found[split] = RowIndex(files[0], _study, columns, labels.optional())
        if not found:
            names = " or ".join(self._layout.tables.values())
            raise DatasetError(f"{self._source} has no {names}: give the folder of the release")
        return found


def _study(row: Row) -> str:
    """`patient00001/study1` of an image's path; of a row without one, its number."""
    parts = row.cells.get(PATH, "").split("/")
    return "/".join(parts[-3:-1]) if not row.fault and len(parts) > 3 else f"row {row.number}"
