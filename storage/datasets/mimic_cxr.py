"""MIMIC-CXR (Johnson et al., Scientific Data 2019) with the images and tables of MIMIC-CXR-JPG.

227,835 reports of 65,379 patients with 377,110 images. Texts are the sections of the official
parser (`mimic_cxr_sections`), on one line as in the paper. View positions, splits and labels come
from the tables of MIMIC-CXR-JPG; without its metadata table, views are read from DICOM headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from storage.datasets.declaration import Declaration
from storage.datasets.label_table import LabelTable
from storage.datasets.mimic_cxr_files import TABLES, MimicFiles, ReportKey
from storage.datasets.mimic_cxr_sections import ReportTexts, report_texts
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.report_files import UnusableFileError
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row
from storage.images.loading import describe_image
from storage.images.types import ImageError
from storage.images.vocabulary import view_position
from storage.rejects import Reject

LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
LABELERS = ("chexpert", "negbio", "radiologist")
_RENAMED = {"radiologist": {"Airspace Opacity": "Lung Opacity"}}
"""The table of the radiologist has another name for one of them."""

_SPLITS = {"train": "train", "validate": "validate", "test": "test"}
_NO_SPLIT = "unsplit"
"""Of studies that no table puts into a split."""

_MODALITY = "DX"
"""All images are digital radiographs; no table says more."""


class MimicCxrReader:
    """Reads MIMIC-CXR, with MIMIC-CXR-JPG where it is there."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source

    def records(self) -> Iterator[SourceRecord]:
        """Every report, in the order of its path."""
        _ = self._metadata  # a damaged table is told of before any report is read
        nothing = True
        for key in self._files.reports():
            nothing = False
            yield SourceRecord(self._split(key.study), key.path, key.patient)
        if nothing:
            raise DatasetError(
                f"{self._source} holds no reports of MIMIC-CXR: it needs mimic-cxr-reports.zip, or "
                "files/p10/p…/s….txt, in it or below; MIMIC-CXR-JPG alone has no reports"
            )

    def fingerprint(self) -> str:
        """Changes with tables and reports, and with what is in the folder of a study's images."""
        return self._files.digest()

    def census(self) -> Mapping[str, int]:
        """Images on disk, and the rows of the metadata table."""
        listed = {"images.listed": len(self._metadata)} if self._metadata else {}
        return {"images": self._files.count_images(), **listed}

    def found(self) -> list[str]:
        """What was found, and where: a sentence each."""
        files = self._files
        trees = ", ".join(map(str, files.trees))
        said = [f"reports from {files.archive or trees}", f"images from {trees or 'nowhere'}"]
        unread = {table.table: table.fault for table in self._labels if table.fault}
        said += [
            f"{name}: its labels are left out: {unread[path]}"
            if path in unread
            else f"{name} from {path}"
            for name, path in files.tables.items()
        ]
        missing = [table for name, table in TABLES.items() if name not in files.tables]
        return said + ([f"not there: {', '.join(missing)}"] if missing else [])

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """Read each report; one in which the official rules find no text is rejected."""
        for record in records:
            key = ReportKey.of_record(record)
            try:
                text = self._files.read(key).decode()
            except UnusableFileError as error:
                yield Reject(key.study, key.path, error.reason, str(error))
                continue
            except UnicodeDecodeError as error:
                detail = f"{key.path} is not UTF-8 text: {error.reason}"
                yield Reject(key.study, key.path, "file_unreadable", detail)
                continue
            texts = report_texts(f"s{key.study}", text)
            if texts is None:
                detail = f"{key.path} has neither findings, nor impression, nor a last paragraph"
                yield Reject(key.study, key.path, "no_report_text", detail)
            else:
                yield self._study(key, texts)

    def _study(self, key: ReportKey, texts: ReportTexts) -> Study:
        images, left_out = self._images(key)
        labels: dict[str, int] = {}
        for table in self._labels:
            given = table.labels(key.study, key.study)
            labels |= given.values
            left_out += given.left_out
        source = self._declaration.source
        return Study(
            study_id=key.study,
            findings=_one_line(texts.findings),
            impression=_one_line(texts.impression),
            source=source if texts.origin == "sections" else f"{source}, {texts.origin}",
            patient_id=key.patient,
            images=tuple(images),
            labels=labels,
            left_out=(*left_out, *(_unused(key, name) for name in texts.unused)),
        )

    def _images(self, key: ReportKey) -> tuple[list[StudyImage], list[Reject]]:
        """The images that the metadata table lists, there or not; without a table, those there."""
        files = self._files.images(key)
        if self._metadata is None:
            return [_described(dicom_id, Path(path)) for dicom_id, path in files.items()], []
        images: dict[str, StudyImage] = {}
        left_out: list[Reject] = []
        for row in self._metadata.rows(key.study):
            dicom_id = row.cells.get("dicom_id", "")
            if row.fault or not dicom_id:
                detail = row.fault or "dicom_id is empty"
                record = f"row {row.number} of {self._metadata.table.name}"
                left_out.append(Reject(key.study, record, "row_malformed", detail))
            else:
                images[dicom_id] = self._image(key, dicom_id, row, files.get(dicom_id))
        return list(images.values()), left_out

    def _image(self, key: ReportKey, dicom_id: str, row: Row, path: str | None) -> StudyImage:
        sizes = [row.cells.get(name, "") for name in ("Rows", "Columns")]
        known = path is not None and all(size.isdecimal() for size in sizes)
        return StudyImage(
            dicom_id,
            path or self._files.expected_image(key, dicom_id),
            _MODALITY,
            view_position(row.cells.get("ViewPosition", "")),
            (int(sizes[0]), int(sizes[1])) if known else None,
        )

    def _split(self, study: str) -> str:
        rows = self._splits.rows(study) if self._splits else []
        said = rows[0].cells.get("split", "") if rows else ""
        return _SPLITS.get(said, _NO_SPLIT)

    @cached_property
    def _files(self) -> MimicFiles:
        return MimicFiles(self._source)

    @cached_property
    def _metadata(self) -> RowIndex | None:
        table = self._files.tables.get("metadata")
        columns = ("study_id", "dicom_id", "ViewPosition")
        return RowIndex(table, "study_id", columns, ("Rows", "Columns")) if table else None

    @cached_property
    def _splits(self) -> RowIndex | None:
        table = self._files.tables.get("split")
        return RowIndex(table, "study_id", ("study_id", "split")) if table else None

    @cached_property
    def _labels(self) -> list[LabelTable]:
        tables = self._files.tables
        return [
            LabelTable(tables[name], "study_id", LABELS, f"{name}:", _RENAMED.get(name))
            for name in LABELERS
            if name in tables
        ]


def _described(dicom_id: str, path: Path) -> StudyImage:
    try:
        file = describe_image(path)
    except ImageError:  # the stage that opens it sets it aside with its reason
        return StudyImage(dicom_id, str(path), _MODALITY)
    return StudyImage(dicom_id, str(path), _MODALITY, file.view, file.shape, file.spacing_mm)


def _unused(key: ReportKey, name: str) -> Reject:
    detail = f"a section {name} of {key.path} is not used"
    return Reject(key.study, f"section {name}", "section_unused", detail)


def _one_line(text: str | None) -> str | None:
    """A text without line breaks and repeated spaces, as the paper stores it."""
    return " ".join(text.split()) if text else None
