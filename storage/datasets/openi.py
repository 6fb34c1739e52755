"""OpenI, the Indiana University chest X-ray collection (Demner-Fushman et al., JAMIA 2016).

3,955 reports as XML with FINDINGS, IMPRESSION, COMPARISON and INDICATION, coded by hand
(`MeSH/major`) and automatically (`MeSH/automatic`). Reports: CC BY-NC-ND 4.0. The images are a
separate download (`NLMCXR_png`); a study refers to its images whether they are there or not.
The collection defines no split of its own.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from storage.datasets.declaration import Declaration
from storage.datasets.reader import LARGEST_REPORT, DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.report_files import ReportFiles, UnusableFileError
from storage.datasets.rows import read_rows
from storage.images.loading import describe_image
from storage.images.types import ImageError
from storage.paths import OutsideError, listing_digest, path_below
from storage.rejects import Reject

ARCHIVE = "NLMCXR_reports.tgz"
FOLDER = "ecgen-radiology"
IMAGES = "NLMCXR_png"
METADATA = "nlmcxr_dicom_metadata.csv.gz"
METADATA_COLUMNS = ("imageid", "Modality", "View Position")


class OpenIReader:
    """Reads the reports from `NLMCXR_reports.tgz` or from an unpacked `ecgen-radiology` folder.

    Images are looked for in `NLMCXR_png`, view positions in the DICOM metadata table that
    torchxrayvision ships (noisy, as its authors say; a third of them is empty).
    """

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source
        self._files = ReportFiles(source / ARCHIVE, source / FOLDER, ".xml")

    def records(self) -> Iterator[SourceRecord]:
        """Every report file, in order of its number."""
        _ = self._views  # a damaged table is told of before any report is read
        keys = self._files.keys()
        if not keys:
            raise DatasetError(
                f"{self._source} holds no OpenI reports: expected {ARCHIVE} or a folder {FOLDER} "
                "with XML files in it"
            )
        return (SourceRecord(self._declaration.splits[0], key) for key in keys)

    def fingerprint(self) -> str:
        """SHA-256 of reports and metadata table, and of the images' names, sizes and times."""
        digest = hashlib.sha256(self._files.digest().encode())
        if self._metadata.exists():
            digest.update(self._metadata.read_bytes())
        digest.update(listing_digest(sorted((self._source / IMAGES).glob("*"))).encode())
        return digest.hexdigest()

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """Parse each report; a file that is not an OpenI report is rejected."""
        for key in (record.key for record in records):
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

    def _image(self, study_id: str, image_id: str) -> StudyImage | Reject:
        try:
            path = path_below(self._source / IMAGES, f"{image_id}.png")
        except OutsideError as error:
            return Reject(study_id, f"image {image_id[:200]}", "path_outside_source", str(error))
        modality, view = self._views.get(_metadata_key(image_id), ("CR", None))
        try:
            shape = describe_image(path).shape
        except ImageError:
            shape = None  # not there, or the detect stage opens it and rejects it with its reason
        return StudyImage(image_id, str(path), modality, view, shape)

    @property
    def _metadata(self) -> Path:
        return self._source / METADATA

    @cached_property
    def _views(self) -> dict[str, tuple[str, str | None]]:
        """Modality and view position by the image's name in the metadata table."""
        if not self._metadata.exists():
            return {}
        try:
            if views := dict(_views_of(self._metadata)):
                return views
            raise DatasetError(f"{self._metadata} holds no rows")
        except DatasetError as error:
            raise DatasetError(f"{error}: delete the file and fetch it again") from error


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


def _views_of(table: Path) -> Iterator[tuple[str, tuple[str, str | None]]]:
    for row in read_rows(table):
        if row.fault:
            raise DatasetError(f"{table}, row {row.number}: {row.fault}")
        try:
            image, modality, view = (row.cells[name] for name in METADATA_COLUMNS)
        except KeyError as error:
            raise DatasetError(f"{table} has no column {error}") from error
        yield image, (modality or "CR", view or None)


def _study_id(name: str) -> str:
    return f"CXR{name.rpartition('.xml')[0]}"


def _metadata_key(image_id: str) -> str:
    """The metadata table leaves out the second number of `CXR1_1_IM-0001-3001`."""
    return re.sub(r"^(CXR\d+)_\d+_", r"\1_", image_id)
