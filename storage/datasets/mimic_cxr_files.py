"""Where the files of MIMIC-CXR and MIMIC-CXR-JPG are below the folder that a user names.

Both keep `files/p19/p19999991/s59999991/<dicom_id>.jpg` or `.dcm`; the report of the study is
`files/p19/p19999991/s59999991.txt`, also in `mimic-cxr-reports.zip`. They may lie in one folder or
in several. A folder of images is listed, no image is opened.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

from storage.archives import DAMAGE, what_is_wrong
from storage.datasets.downloads import files_in, folders_below, is_junk
from storage.datasets.reader import LARGEST_REPORT, DatasetError, SourceRecord
from storage.datasets.report_files import UnusableFileError, read_report_file

REPORTS = "mimic-cxr-reports.zip"
TABLES = {
    "metadata": "mimic-cxr-2.0.0-metadata.csv",
    "split": "mimic-cxr-2.0.0-split.csv",
    "chexpert": "mimic-cxr-2.0.0-chexpert.csv",
    "negbio": "mimic-cxr-2.0.0-negbio.csv",
    "radiologist": "mimic-cxr-2.1.0-test-set-labeled.csv",
}
"""What each table is called, gzipped or not; 2.0.0 stands in the names of 2.1.0, too."""

IMAGE_SUFFIXES = (".jpg", ".dcm")
"""Of an image in both forms the JPEG counts, as in the paper."""

_REPORT = re.compile(r"(?:.*/)?(p\d\d/p(\d+)/s(\d+)\.txt)")


@dataclass(frozen=True)
class ReportKey:
    """A report: its path below `files`, whose patient and which study it is."""

    path: str
    patient: str
    study: str

    @property
    def folder(self) -> str:
        """The folder of the study's images below `files`."""
        return self.path.removesuffix(".txt")

    @classmethod
    def of_record(cls, record: SourceRecord) -> ReportKey:
        """The key of a record that was made of one."""
        name = record.key.rpartition("/")[2]
        return cls(record.key, record.patient_id or "", name.removeprefix("s").removesuffix(".txt"))

    @classmethod
    def of(cls, path: str) -> ReportKey | None:
        """The key of a path; None if it is none of a report."""
        found = _REPORT.fullmatch(path)
        return cls(*found.groups()) if found else None


class MimicFiles:
    """The files below a folder.

    trees: every folder `files` with patients in it, the latest version first.
    tables: the tables that are there, by the names of `TABLES`.
    archive: `mimic-cxr-reports.zip`; None where it is not.
    """

    def __init__(self, root: Path) -> None:
        """Look through the folders.

        Raises:
            DatasetError: if a folder cannot be listed.
        """
        folders = list(folders_below(root))
        self.root = root
        self.trees = [f for f in _latest_first(folders) if f.name == "files" and _has_patients(f)]
        if not self.trees and _has_patients(root):
            self.trees = [root]
        patterns = {name: (table, f"{table}.gz") for name, table in TABLES.items()}
        found = {name: [*files_in(folders, *names)] for name, names in patterns.items()}
        self.tables = {name: _latest_first(files)[0] for name, files in found.items() if files}
        archives = [*files_in(folders, REPORTS)]
        self.archive = _latest_first(archives)[0] if archives else None

    def reports(self) -> Iterator[ReportKey]:
        """Every report in the order of its path; of the archive, where there is one.

        Raises:
            DatasetError: if the archive is damaged or a folder cannot be listed.
        """
        if self.archive:
            yield from self._archived.keys()
            return
        for place, tree in enumerate(self.trees):
            for folder in _patients(tree):
                below = f"{folder.parent.name}/{folder.name}"
                paths = (f"{below}/{entry.name}" for entry in _entries(folder))
                for key in filter(None, map(ReportKey.of, paths)):
                    if not any((other / key.path).exists() for other in self.trees[:place]):
                        yield key

    def read(self, key: ReportKey) -> bytes:
        """The content of a report's file.

        Raises:
            UnusableFileError: if it is no report, too large or cannot be read.
        """
        if self.archive:
            return self._archived.read(key)
        paths = [tree / key.path for tree in self.trees]
        return read_report_file(next((p for p in paths[:-1] if p.exists()), paths[-1]))

    def images(self, key: ReportKey) -> dict[str, str]:
        """The image files in the folders of a study, by image, in the order of their names."""
        files = [(folder, name) for folder in self._folders(key) for name in _names(folder)]
        found: dict[str, str] = {}
        for suffix in IMAGE_SUFFIXES:
            for folder, name in files:
                if name.endswith(suffix):
                    found.setdefault(name.removesuffix(suffix), f"{folder}/{name}")
        return dict(sorted(found.items()))

    def expected_image(self, key: ReportKey, dicom_id: str) -> str:
        """Where the JPEG of an image would be that is not there."""
        files = self.trees[0] if self.trees else self.root / "files"
        return f"{files}/{key.folder}/{dicom_id}{IMAGE_SUFFIXES[0]}"

    def _folders(self, key: ReportKey) -> list[str]:
        """Where the images of a study can be."""
        return [f"{tree}/{key.folder}" for tree in self.trees]

    def count_images(self) -> int:
        """Images on disk: JPEGs, or DICOM files where there are none."""
        counts = dict.fromkeys(IMAGE_SUFFIXES, 0)
        for tree in self.trees:
            for patient in _patients(tree):
                for study in _entries(patient):
                    if study.is_dir():
                        for image in _entries(patient / study.name):
                            suffix = image.name[-4:]
                            if suffix in counts:
                                counts[suffix] += 1
        return next((count for count in counts.values() if count), 0)

    def digest(self) -> str:
        """Changes with a table, the archive, a report, or the images in a study's folder."""
        digest = hashlib.sha256()
        for path in filter(None, (self.archive, *self.tables.values())):
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        for tree in self.trees:
            for patient in _patients(tree):
                for entry in _entries(patient):
                    status = entry.stat()
                    said = f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\0"
                    digest.update(os.fsencode(said))
        return digest.hexdigest()

    @cached_property
    def _archived(self) -> _ReportArchive:
        return _ReportArchive(self.archive or self.root / REPORTS)


class _ReportArchive:
    """`mimic-cxr-reports.zip`, read in place. Its directory is in memory, 0.7 kB a report.

    Several threads may read at once.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise DatasetError(
                f"{path} is damaged ({what_is_wrong(error)}): download it again"
            ) from error
        self._lock = Lock()
        # of two members with one path the later one counts, as when the archive is unpacked
        keys = ((info, ReportKey.of(info.filename)) for info in self._zip.infolist())
        self._members = {key.path: info for info, key in keys if key}

    def keys(self) -> Iterator[ReportKey]:
        """Every report in the order of its path."""
        yield from filter(None, map(ReportKey.of, sorted(self._members)))

    def read(self, key: ReportKey) -> bytes:
        """The content of a member.

        Raises:
            UnusableFileError: if it is too large, damaged or encrypted.
        """
        member = self._members[key.path]
        if member.file_size > LARGEST_REPORT:  # no more than that is inflated
            detail = f"{key.path} has more than {LARGEST_REPORT:,} bytes"
            raise UnusableFileError("too_large", detail)
        try:
            with self._lock, self._zip.open(member) as stream:
                return stream.read()
        except (*DAMAGE, RuntimeError, NotImplementedError) as error:
            detail = f"{key.path} in {self._zip.filename}: {what_is_wrong(error)}"
            raise UnusableFileError("file_unreadable", detail) from error


def _latest_first(paths: list[Path]) -> list[Path]:
    """The nearest first, and of those as near, the last by name, which has the latest version."""
    return sorted(sorted(paths, reverse=True), key=lambda path: len(path.parts))


def _has_patients(folder: Path) -> bool:
    return any(re.fullmatch(r"p\d\d", entry.name) for entry in _entries(folder))


def _patients(tree: Path) -> Iterator[Path]:
    """The folders of patients, in order."""
    for group in _entries(tree):
        if re.fullmatch(r"p\d\d", group.name) and group.is_dir():
            for patient in _entries(tree / group.name):
                if re.fullmatch(r"p\d+", patient.name) and patient.is_dir():
                    yield tree / group.name / patient.name


def _names(folder: str) -> list[str]:
    """What is in a folder; nothing where it is not there."""
    try:
        return [name for name in os.listdir(folder) if not is_junk(name)]  # noqa: PTH208 300,000 times
    except OSError:
        return []


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_junk(entry.name)]
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}") from error
    return sorted(found, key=lambda entry: entry.name)
