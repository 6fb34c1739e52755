"""OpenI, the Indiana University chest X-ray collection (Demner-Fushman et al., JAMIA 2016).

3,955 reports as XML with FINDINGS, IMPRESSION, COMPARISON and INDICATION, coded by hand
(`MeSH/major`) and automatically (`MeSH/automatic`). Reports: CC BY-NC-ND 4.0. The images are a
separate download (`NLMCXR_png`); a study refers to its images whether they are there or not.
The collection defines no split of its own.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from storage.datasets.declaration import Declaration
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.images.loading import describe_image
from storage.images.types import ImageError
from storage.rejects import Reject

ARCHIVE = "NLMCXR_reports.tgz"
FOLDER = "ecgen-radiology"
IMAGES = "NLMCXR_png"
METADATA = "nlmcxr_dicom_metadata.csv.gz"


class OpenIReader:
    """Reads the reports from `NLMCXR_reports.tgz` or from an unpacked `ecgen-radiology` folder.

    Images are looked for in `NLMCXR_png`, view positions in the DICOM metadata table that
    torchxrayvision ships (noisy, as its authors say; a third of them is empty).
    """

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source

    def records(self) -> list[SourceRecord]:
        """Every report file, in order of its number."""
        names = self._file_names()
        if not names:
            raise DatasetError(
                f"{self._source} holds no OpenI reports: expected {ARCHIVE} or a folder {FOLDER} "
                "with XML files in it"
            )
        split = self._declaration.splits[0]
        return [SourceRecord(split, name) for name in sorted(names, key=_number)]

    def fingerprint(self) -> str:
        """SHA-256 of the archive, or of names, sizes and times in the folder; and of the images."""
        digest = hashlib.sha256()
        archive = self._source / ARCHIVE
        folders = [self._source / IMAGES]
        if archive.exists():
            digest.update(archive.read_bytes())
        else:
            folders.append(self._source / FOLDER)
        for file in sorted(file for folder in folders for file in folder.glob("*")):
            status = file.stat()
            digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def read(self, records: Sequence[SourceRecord]) -> Iterator[Study | Reject]:
        """Parse each report; a file that is not an OpenI report is rejected."""
        contents = self._contents({record.key for record in records})
        for key in (record.key for record in records):
            try:
                data = contents[key] if contents else (self._folder / key).read_bytes()
                yield self._study(key, data)
            # an encoding that expat does not know is a LookupError or a ValueError
            except (ET.ParseError, LookupError, ValueError) as error:
                detail = f"{key} is not XML that can be read: {error}"
                yield Reject(_study_id(key), key, "xml_unreadable", detail)
            except OSError as error:
                detail = f"{key} cannot be read: {error.strerror}"
                yield Reject(_study_id(key), key, "file_unreadable", detail)

    @property
    def _folder(self) -> Path:
        return self._source / FOLDER

    def _file_names(self) -> list[str]:
        if (self._source / ARCHIVE).exists():
            return [name for name, _ in self._archive_members()]
        return [file.name for file in self._folder.glob("*.xml")]

    def _contents(self, wanted: set[str]) -> dict[str, bytes]:
        """The wanted files of the archive; empty when the source is a folder."""
        if (self._source / ARCHIVE).exists():
            return dict(self._archive_members(wanted))
        return {}

    def _archive_members(self, read: set[str] | None = None) -> Iterator[tuple[str, bytes]]:
        archive = self._source / ARCHIVE
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    name = member.name.removeprefix(f"{FOLDER}/")
                    if not (member.isfile() and name.endswith(".xml")):
                        continue
                    if read is None:
                        yield name, b""
                    elif name in read and (stream := tar.extractfile(member)):
                        yield name, stream.read()
        except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
            reason = str(error).splitlines()[0]
            raise DatasetError(
                f"{archive} cannot be unpacked ({reason}): fetch it again"
            ) from error

    def _study(self, name: str, data: bytes) -> Study:
        root = ET.fromstring(data)  # noqa: S314 expat itself refuses entity bombs
        sections: dict[str | None, str] = {}
        for node in root.iter("AbstractText"):
            before = sections.get(node.get("Label"), "")
            sections[node.get("Label")] = f"{before} {''.join(node.itertext()).strip()}".strip()
        mesh = [(node.tag, (node.text or "").strip()) for node in root.iterfind("./MeSH/*")]
        return Study(
            study_id=_study_id(name),
            findings=sections.get("FINDINGS") or None,
            impression=sections.get("IMPRESSION") or None,
            source=self._declaration.source,
            images=tuple(self._image(node.get("id") or "") for node in root.iter("parentImage")),
            labels={f"mesh_{kind}:{term}": 1 for kind, term in mesh if term},
        )

    def _image(self, image_id: str) -> StudyImage:
        path = self._source / IMAGES / f"{image_id}.png"
        modality, view = self._views.get(_metadata_key(image_id), ("CR", None))
        shape = None
        if path.exists():
            try:
                shape = describe_image(path).shape
            except ImageError:
                shape = None  # the detect stage opens it and rejects it with its reason
        return StudyImage(image_id, str(path), modality, view, shape)

    @cached_property
    def _views(self) -> dict[str, tuple[str, str | None]]:
        table = self._source / METADATA
        if not table.exists():
            return {}
        with gzip.open(table, "rt", newline="") as stream:
            rows = csv.DictReader(stream)
            return {r["imageid"]: (r["Modality"] or "CR", r["View Position"] or None) for r in rows}


def _number(name: str) -> tuple[int, str]:
    digits = re.search(r"\d+", name)
    return (int(digits.group()) if digits else 0, name)


def _study_id(name: str) -> str:
    return f"CXR{name.removesuffix('.xml')}"


def _metadata_key(image_id: str) -> str:
    """The metadata table leaves out the second number of `CXR1_1_IM-0001-3001`."""
    return re.sub(r"^(CXR\d+)_\d+_", r"\1_", image_id)
