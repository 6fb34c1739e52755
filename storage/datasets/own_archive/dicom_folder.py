"""A folder of DICOM studies in any order: which objects there are, by study and series.

Names and folders say nothing of what a file is: the header does. Each header is read once; what it
says is put aside on disk, so that an archive of any size takes little memory.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from storage.datasets.own_archive.checks import Checked
from storage.datasets.reader import DatasetError
from storage.images.types import ImageError
from storage.images.vocabulary import is_radiograph, is_volume

_AT_ONCE = 2048
"""Files handed to the processes that read headers before their answers are kept."""

_SUFFIXES = (".dcm", ".dicom", ".ima")
IMAGE_SUFFIXES = (
    *(".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"),
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff"),
)
"""Of images that are read and are no DICOM."""

_CHUNK = 64
_PROCESSES = min(8, os.cpu_count() or 1)
_IN_PROCESS = 256
"""Files of a folder that is not worth starting processes for."""


class Header(NamedTuple):
    """What is kept of an object; `path` is below the folder, with slashes; `size` in bytes."""

    study: str
    series: str
    accession: str
    patient: str
    modality: str
    sop_class: str
    sop: str
    path: str
    folder: str
    size: int


class Series(NamedTuple):
    """A series of images of one study.

    paths: of its objects; of the copies of one, the largest, as others may be cut short.
    folder: the folder that holds this series and no other object; None if there is none.
    """

    uid: str
    modality: str
    paths: list[str]
    folder: str | None


class DicomFolder:
    """The objects of a folder, by study."""

    def __init__(self, folder: Path, checked: Checked, tick: Callable[[], None]) -> None:
        """Read every header.

        Raises:
            DatasetError: if the folder holds no DICOM object.
        """
        self.folder = folder
        self.other_files: Counter[str] = Counter()
        self._db = sqlite3.connect("")  # without a name: on disk, and removed with the process
        marks = ", ".join("?" * len(Header._fields))
        self._db.execute(f"CREATE TABLE objects ({', '.join(Header._fields)})")
        for found in _headers(folder, tick):
            if isinstance(found, Header):
                self._db.execute(f"INSERT INTO objects VALUES ({marks})", found)  # noqa: S608
            elif isinstance(found, ImageError):
                checked.fault(found.reason, found.detail)
            else:
                self.other_files[found] += 1
        for column in ("study", "folder"):
            self._db.execute(f"CREATE INDEX by_{column} ON objects ({column})")
        if not self._one("SELECT count(*) FROM objects"):
            kinds = ", ".join(f"{n:,} {kind}" for kind, n in self.other_files.most_common(5))
            raise DatasetError(
                f"{folder} holds no DICOM file" + (f", but {kinds}" if kinds else "") + ": name "
                "NIfTI, PNG and JPEG files in a table, and give it with --table"
            )
        self.is_known_by_accession = not self._one(
            "SELECT count(*) FROM (SELECT accession FROM objects GROUP BY accession "
            "HAVING accession = '' OR count(DISTINCT study) > 1)"
        ) and not self._one(
            "SELECT count(*) FROM (SELECT study FROM objects GROUP BY study "
            "HAVING count(DISTINCT accession) > 1)"
        )

    def studies(self) -> Iterator[str]:
        """The Study Instance UID of each study, in order."""
        query = "SELECT DISTINCT study FROM objects ORDER BY study"
        return (study for (study,) in self._db.cursor().execute(query))

    def name_of(self, study: str) -> str:
        """What the study is called: its accession number where every study has its own."""
        column = "accession" if self.is_known_by_accession else "study"
        return str(self._one(f"SELECT min({column}) FROM objects WHERE study = ?", study))  # noqa: S608

    def patient_of(self, study: str) -> str:
        """The id of the patient; empty where the headers give none."""
        return str(self._one("SELECT max(patient) FROM objects WHERE study = ?", study) or "")

    def series(self, study: str, checked: Checked) -> Iterator[Series]:
        """The CT series and the radiographs of a study; other objects are counted as left out."""
        query = (
            "SELECT series, modality, count(*), count(DISTINCT folder), min(folder) FROM objects "
            "WHERE study = ? GROUP BY series, modality ORDER BY series, modality"
        )
        for uid, modality, count, folders, folder in self._db.cursor().execute(query, (study,)):
            if not (is_volume(modality) or is_radiograph(modality)):
                what = modality or "objects without a modality"
                checked.remark("other_modality", f"{what} of study {self.name_of(study)}", count)
                continue
            paths = self._paths(study, uid, modality)
            if copies := count - len(paths):
                checked.remark("same_object", f"in study {self.name_of(study)}", copies)
            alone = folders == 1 and len(paths) == count == self._one(
                "SELECT count(*) FROM objects WHERE folder = ?", folder
            )
            yield Series(uid, modality, paths, folder if alone else None)

    def _paths(self, study: str, series: str, modality: str) -> list[str]:
        query = (
            "SELECT path FROM (SELECT path, row_number() OVER (PARTITION BY "
            "CASE sop WHEN '' THEN path ELSE sop END ORDER BY size DESC, path) AS place "
            "FROM objects WHERE study = ? AND series = ? AND modality = ?) "
            "WHERE place = 1 ORDER BY path"
        )
        return [path for (path,) in self._db.cursor().execute(query, (study, series, modality))]

    def own_names(self) -> Iterator[tuple[str, str]]:
        """Study Instance UIDs and accession numbers, each with the study; these are its own."""
        yield from self._named("study")
        yield from self._named("accession")

    def other_names(self) -> Iterator[tuple[str, str]]:
        """What a report may call a study besides, each with the study.

        The patient's id, and every folder that holds objects of this study alone, by its path below
        the folder and by its name.
        """
        yield from self._named("patient")
        self._db.execute("CREATE TABLE IF NOT EXISTS above (folder, study, UNIQUE (folder, study))")
        pairs = "SELECT DISTINCT folder, study FROM objects"
        for folder, study in self._db.cursor().execute(pairs):
            parts = folder.split("/") if folder else []
            self._db.executemany(
                "INSERT OR IGNORE INTO above VALUES (?, ?)",
                [("/".join(parts[: n + 1]), study) for n in range(len(parts))],
            )
        alone = "SELECT folder, min(study) FROM above GROUP BY folder HAVING count(*) = 1"
        for folder, study in self._db.cursor().execute(alone):
            yield folder, study
            yield folder.rpartition("/")[2], study

    def _named(self, column: str) -> Iterator[tuple[str, str]]:
        query = f"SELECT DISTINCT {column}, study FROM objects WHERE {column} != ''"  # noqa: S608
        return self._db.cursor().execute(query)

    def _one(self, query: str, *values: str) -> int | str | None:
        found: tuple[int | str | None] = self._db.execute(query, values).fetchone()
        return found[0]


def files_below(folder: Path) -> Iterator[Path]:
    """Every file, folder after folder in order of names; hidden ones are left out.

    Links are followed, each folder is looked into once.

    Raises:
        DatasetError: if a folder cannot be listed, which would leave out studies unseen.
    """
    seen: set[tuple[int, int]] = set()
    for above, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        status = Path(above).stat()
        if (place := (status.st_dev, status.st_ino)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(above, name) for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise DatasetError(f"{error.filename} cannot be listed: {error.strerror}") from error


def _headers(folder: Path, tick: Callable[[], None]) -> Iterator[Header | ImageError | str]:
    """Each object's header, what is wrong with it, or the suffix of a file that is no DICOM."""
    files = files_below(folder)
    first = list(islice(files, _IN_PROCESS))
    for path in first:
        yield _header(folder, path)
        tick()
    if len(first) < _IN_PROCESS:
        return
    with ProcessPoolExecutor(_PROCESSES) as pool:
        while batch := list(islice(files, _AT_ONCE)):
            for found in pool.map(_header, [folder] * len(batch), batch, chunksize=_CHUNK):
                yield found
                tick()


def _suffix(path: Path) -> str:
    """What a file's name ends with, also `.nii.gz`."""
    inner = Path(path.stem).suffix if path.suffix.lower() == ".gz" else ""
    return (inner + path.suffix).lower()


def _header(folder: Path, path: Path) -> Header | ImageError | str:
    from storage.images import dicom

    try:
        if path.name == "DICOMDIR" or not path.is_file() or not dicom.is_dicom(path):
            if path.suffix.lower() in _SUFFIXES:
                return ImageError("image_unreadable", f"{path} is not DICOM, or is cut short")
            return _suffix(path) or "without a suffix"
        header = dicom.read_header(path)
    except ImageError as error:
        return error
    except Exception as error:  # noqa: BLE001 pydicom has no common error for damaged files
        return ImageError("image_unreadable", f"{path} cannot be read as DICOM: {error}")
    name = path.relative_to(folder).as_posix()
    if not name.isprintable():
        detail = f"{name.encode(errors='replace').decode()} is no name in UTF-8: rename the file"
        return ImageError("image_unreadable", detail)
    above = name.rpartition("/")[0]
    sop_class = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""
    return Header(
        study=dicom.text(header, "StudyInstanceUID") or f"folder {above or folder.name}",
        series=dicom.text(header, "SeriesInstanceUID") or f"folder {above or folder.name}",
        accession=dicom.text(header, "AccessionNumber"),
        patient=dicom.text(header, "PatientID"),
        modality=dicom.text(header, "Modality").upper(),
        sop_class=str(sop_class),
        sop=dicom.text(header, "SOPInstanceUID"),
        path=name,
        folder=above,
        size=path.stat().st_size,
    )
