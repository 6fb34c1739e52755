"""OpenI, the Indiana University chest X-ray collection (Demner-Fushman et al., JAMIA 2016).

3,955 reports as XML with FINDINGS, IMPRESSION, COMPARISON and INDICATION, coded by hand
(`MeSH/major`) and automatically (`MeSH/automatic`). Reports: CC BY-NC-ND 4.0. The images are a
separate download (`openi_images`); a study refers to its images whether they are there or not.
The re-release on Kaggle has the reports as a table, `indiana_reports.csv`, which is read where
there is no XML. The collection defines no split of its own.
"""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from storage.datasets.declaration import Declaration
from storage.datasets.openi_images import OpenIImages
from storage.datasets.reader import LARGEST_REPORT, DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.report_files import ReportFiles, UnusableFileError
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row
from storage.images.loading import describe_image
from storage.images.types import ImageError
from storage.paths import OutsideError
from storage.rejects import Reject

ARCHIVE = "NLMCXR_reports.tgz"
FOLDER = "ecgen-radiology"
TABLE = "indiana_reports.csv"
TABLE_COLUMNS = ("uid", "MeSH", "findings", "impression")
_OF_TABLE = f"{TABLE}/"
"""Begins the key of a record that is a row of the table."""


class OpenIReader:
    """Reads the reports from `NLMCXR_reports.tgz`, an unpacked `ecgen-radiology`, or a table."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source
        self._files = ReportFiles(source / ARCHIVE, source / FOLDER, ".xml")
        self._images = OpenIImages(source)

    def records(self) -> Iterator[SourceRecord]:
        """Every report file, in order of its number, or every row of the table."""
        self._images.check_tables()  # a damaged table is told of before any report is read
        keys = self._files.keys() or self._table_keys()
        if not keys:
            raise DatasetError(
                f"{self._source} holds no OpenI reports: expected {ARCHIVE} or a folder {FOLDER} "
                f"with XML files in it, or {TABLE}"
            )
        return (SourceRecord(self._declaration.splits[0], key) for key in keys)

    def fingerprint(self) -> str:
        """SHA-256 of reports and tables, and of the images' names, sizes and times."""
        digest = hashlib.sha256(self._files.digest().encode())
        if (self._source / TABLE).exists():
            digest.update((self._source / TABLE).read_bytes())
        digest.update(self._images.digest())
        return digest.hexdigest()

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """Parse each report; a file or row that is not an OpenI report is rejected."""
        for key in (record.key for record in records):
            if key.startswith(_OF_TABLE):
                yield self._study_of_row(key.removeprefix(_OF_TABLE))
                continue
            try:
                yield self._study(key, self._files.read(key))
            except UnusableFileError as error:
                yield Reject(_study_id(key), key, error.reason, str(error))
            # an encoding that expat does not know is a LookupError or a ValueError
            except (ET.ParseError, LookupError, ValueError) as error:
                detail = f"{key} is not XML that can be read: {error}"
                yield Reject(_study_id(key), key, "xml_unreadable", detail)

    def _study(self, name: str, data: bytes) -> Study:
        root = ET.fromstring(data)  # noqa: S314 expat refuses entity bombs and fetches nothing
        mesh = [(node.tag, (node.text or "").strip()) for node in root.iterfind("./MeSH/*")]
        sections = _sections(name, root)
        named = [self._image(_study_id(name), image_id) for image_id in _image_ids(root)]
        return Study(
            study_id=_study_id(name),
            findings=sections.get("FINDINGS") or None,
            impression=sections.get("IMPRESSION") or None,
            source=self._declaration.source,
            images=tuple(image for image in named if isinstance(image, StudyImage)),
            labels={f"mesh_{kind}:{term}": 1 for kind, term in mesh if term},
            left_out=tuple(image for image in named if isinstance(image, Reject)),
        )

    def _study_of_row(self, uid: str) -> Study | Reject:
        rows = self._table.rows(uid) if self._table else []
        first, where = rows[0], f"{TABLE} row {', '.join(str(row.number) for row in rows)}"
        if first.fault or not first.cells.get("uid"):
            reason = "row_malformed" if first.fault else "study_id_missing"
            return Reject(uid, where, reason, f"{where}: {first.fault or 'uid is empty'}")
        if any(row.cells != first.cells for row in rows):
            return Reject(uid, where, "rows_disagree", f"{where}: two reports have one uid")
        named = [self._image(f"CXR{uid}", image_id) for image_id in self._images.of_report(uid)]
        mesh = (term.strip() for term in first.cells["MeSH"].split(";"))
        return Study(
            study_id=f"CXR{uid}",
            findings=first.cells["findings"] or None,
            impression=first.cells["impression"] or None,
            source=self._declaration.source,
            images=tuple(image for image in named if isinstance(image, StudyImage)),
            labels={f"mesh_major:{term}": 1 for term in mesh if term},
            left_out=tuple(image for image in named if isinstance(image, Reject)),
        )

    def _image(self, study_id: str, image_id: str) -> StudyImage | Reject:
        try:
            path = self._images.path(image_id)
        except OutsideError as error:
            return Reject(study_id, f"image {image_id[:200]}", "path_outside_source", str(error))
        modality, view = self._images.taken(image_id)
        try:
            shape = describe_image(path).shape
        except ImageError:
            shape = None  # not there, or the detect stage opens it and rejects it with its reason
        return StudyImage(image_id, str(path), modality, view, shape)

    def _table_keys(self) -> list[str]:
        uids = self._table.keys() if self._table else ()
        return [f"{_OF_TABLE}{uid}" for uid in uids]

    @cached_property
    def _table(self) -> RowIndex | None:
        table = self._source / TABLE
        return RowIndex(table, _uid, TABLE_COLUMNS) if table.exists() else None


def _sections(name: str, root: ET.Element) -> dict[str | None, str]:
    """The text of each section by its label; the texts of a repeated one are joined."""
    parts: dict[str | None, list[str]] = {}
    for node in root.iter("AbstractText"):
        parts.setdefault(node.get("Label"), []).append("".join(node.itertext()).strip())
    sections = {label: " ".join(filter(None, texts)) for label, texts in parts.items()}
    for label, text in sections.items():
        if len(text) > LARGEST_REPORT:  # by entities that stand for much text
            detail = f"section {label} of {name} has more than {LARGEST_REPORT:,} characters"
            raise UnusableFileError("too_large", detail)
    return sections


def _image_ids(root: ET.Element) -> list[str]:
    ids = (node.get("id") for node in root.iter("parentImage"))
    return list(dict.fromkeys(image_id for image_id in ids if image_id))


def _uid(row: Row) -> str:
    """The number of a report; for a row that has none, the row's own."""
    return (not row.fault and row.cells.get("uid")) or f"row {row.number}"


def _study_id(name: str) -> str:
    return f"CXR{name.rpartition('.xml')[0]}"
