"""CT-RATE (Hamamci et al., 2024): non-contrast chest CT with reports translated from Turkish.

25,692 scans of 21,304 patients, 50,188 reconstructions. A study is a scan; its reconstructions are
its images, which share one report and one set of labels. Both splits number their patients from 1,
so a patient is known by split and number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path

from storage.datasets.ct_rate_volumes import (
    NAME,
    RESCALE_AND_SPACING,
    Release,
    VolumeError,
    Volumes,
    correction_of_first_release,
    release_by_values,
    stem,
)
from storage.datasets.declaration import Declaration
from storage.datasets.downloads import files_in, folders_below
from storage.datasets.label_table import LabelTable
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row
from storage.images.loading import describe_image
from storage.images.types import ImageError
from storage.rejects import Reject

LABELS = (
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
)

_SPLITS = {"train": "train", "valid": "validate"}
"""What files and volumes call a split, and what it is called here; some say `validation`."""

_TEXTS = ("Findings_EN", "Impressions_EN")
_NOT_GIVEN = ("not given.", "not given")


class CtRateReader:
    """Reads CT-RATE as the hub has it, with the volumes of either release or of both."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source

    def records(self) -> Iterator[SourceRecord]:
        """Every scan that has a report, and every row of the reports that names no volume."""
        for split, reports in self._reports.items():
            for key in reports.keys():  # noqa: SIM118 it is no mapping
                yield SourceRecord(_SPLITS[split], f"{split}/{key}", _patient_of(key))

    def fingerprint(self) -> str:
        """SHA-256 of the tables, and of the volumes' names, sizes and times."""
        digest = hashlib.sha256(self._volumes.digest().encode())
        for kind in ("_reports.csv", "_predicted_labels.csv", "_metadata.csv"):
            for path in self._tables(kind).values():
                with path.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def census(self) -> Mapping[str, int]:
        """Volumes on disk by release, as their folders have it, and volumes that have a report."""
        listed = sum(len(reports) for reports in self._reports.values())
        return {**self._volumes.count(), "images.listed": listed}

    def found(self) -> list[str]:
        """What was found, and where: a sentence each."""
        said = [f"reports from {path}" for path in self._tables("_reports.csv").values()]
        for folder in self._volumes.folders:
            release = {
                "corrected": "corrected release: Hounsfield units",
                "first": "first release: rescale and spacing are taken from the metadata table",
                None: "release told by the values of each volume",
            }[folder.release]
            said.append(f"volumes from {folder.path} ({release})")
        faults = (table.fault for table in self._labels.values() if table.fault)
        return said + [f"labels are left out: {fault}" for fault in faults]

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The study of each scan; one whose rows give different texts is rejected."""
        for record in records:
            split, _, scan = record.key.partition("/")
            rows = self._reports[split].rows(scan)
            where = (
                f"{self._reports[split].table.name} row {', '.join(str(r.number) for r in rows)}"
            )
            fault = next((row.fault for row in rows if row.fault), None)
            if fault:
                yield Reject(scan, where, "row_malformed", f"{where}: {fault}")
            elif record.patient_id is None:
                name = rows[0].cells.get("VolumeName", "")[:80]
                detail = (
                    f"{where}: VolumeName is {name!r}, not the name of a volume such as "
                    f"{split}_1_a_1.nii.gz"
                )
                yield Reject(scan, where, "study_id_missing", detail)
            elif any(_texts(row) != _texts(rows[0]) for row in rows):
                detail = f"{where}: reconstructions of one scan have different reports"
                yield Reject(scan, where, "rows_disagree", detail)
            else:
                yield self._study(split, scan, rows, record.patient_id)

    def _study(self, split: str, scan: str, rows: list[Row], patient: str) -> Study:
        images, left_out, releases = self._images(split, scan, rows)
        labels = self._labels[split].labels(scan, scan) if split in self._labels else None
        findings, impression = _texts(rows[0])
        release = " and ".join(sorted(releases))
        return Study(
            study_id=scan,
            findings=findings,
            impression=impression,
            source=self._declaration.source + (f", {release} release" if release else ""),
            patient_id=patient,
            images=tuple(images),
            labels=labels.values if labels else {},
            left_out=(*left_out, *(labels.left_out if labels else ())),
        )

    def _images(
        self, split: str, scan: str, rows: list[Row]
    ) -> tuple[list[StudyImage], list[Reject], set[Release]]:
        """The reconstructions on disk, what is missing of them, and the releases they are of."""
        images: list[StudyImage] = []
        left_out: list[Reject] = []
        releases: set[Release] = set()
        there = self._volumes.of_scan(scan)
        named = [stem(row.cells.get("VolumeName", "")) for row in rows]
        for name in dict.fromkeys((*(n for n in named if n != scan), *there)):
            try:
                if name not in there:
                    raise VolumeError("image_not_found", f"{name} has a report and no volume")
                uri, release = self._uri(split, name, *there[name])
                images.append(_described(name, uri))
                releases.add(release)
            except VolumeError as error:
                left_out.append(Reject(scan, name, error.reason, str(error), image_id=name))
        return images, left_out, releases

    def _uri(self, split: str, name: str, path: Path, said: Release | None) -> tuple[str, Release]:
        """The uri of a volume, which corrects its header if need be, and its release."""
        if said == "corrected":
            return str(path), said
        try:
            correction = correction_of_first_release(name, self._metadata.get(split))
        except VolumeError:
            if said == "first":
                raise
            return str(path), "corrected"  # nothing else can be made of it
        release = release_by_values(path, said, correction) or "corrected"
        return (correction.uri(path) if release == "first" else str(path)), release

    @cached_property
    def _folders(self) -> list[Path]:
        return list(folders_below(self._source))

    @cached_property
    def _volumes(self) -> Volumes:
        return Volumes(self._source)

    def _tables(self, ending: str) -> dict[str, Path]:
        """The tables of a kind by split, the nearest of each."""
        found: dict[str, Path] = {}
        for path in files_in(self._folders, f"*{ending}", f"*{ending}.gz"):
            split = next((name for name in _SPLITS if path.name.startswith(name)), None)
            if split:
                found.setdefault(split, path)
        return {split: found[split] for split in _SPLITS if split in found}

    @cached_property
    def _reports(self) -> dict[str, RowIndex]:
        tables = self._tables("_reports.csv")
        if not tables:
            raise DatasetError(
                f"{self._source} holds no reports of CT-RATE: expected train_reports.csv or "
                "validation_reports.csv in it or in a folder below, as radiology_text_reports"
            )
        columns = ("VolumeName", *_TEXTS)
        return {
            split: RowIndex(path, partial(_scan_of, split), columns)
            for split, path in tables.items()
        }

    @cached_property
    def _labels(self) -> dict[str, LabelTable]:
        return {
            split: LabelTable(path, partial(_scan_of, split), LABELS, "ct-rate:")
            for split, path in self._tables("_predicted_labels.csv").items()
        }

    @cached_property
    def _metadata(self) -> dict[str, RowIndex]:
        """Rescale and spacing by volume; read when the first volume needs it."""
        return {
            split: RowIndex(path, _volume_of, RESCALE_AND_SPACING)
            for split, path in self._tables("_metadata.csv").items()
        }


def _scan_of(split: str, row: Row) -> str:
    """The scan that a row is of; for a row that names no volume of the split, its number."""
    found = NAME.fullmatch(row.cells.get("VolumeName", ""))
    if row.fault or found is None or found[1] != split:
        return f"row {row.number}"
    return f"{found[1]}_{found[2]}_{found[3]}"


def _volume_of(row: Row) -> str:
    return stem(row.cells.get("VolumeName", ""))


def _patient_of(scan: str) -> str | None:
    found = NAME.fullmatch(scan)
    return f"{found[1]}_{found[2]}" if found else None


def _texts(row: Row) -> tuple[str | None, str | None]:
    """Findings and impression; None for what the table calls not given."""
    findings, impression = (row.cells.get(column, "") for column in _TEXTS)
    return (
        None if findings.lower() in _NOT_GIVEN else findings or None,
        None if impression.lower() in _NOT_GIVEN else impression or None,
    )


def _described(name: str, uri: str) -> StudyImage:
    try:
        file = describe_image(Path(uri))
    except ImageError:  # the stage that opens it sets it aside with its reason
        return StudyImage(name, uri, "CT")
    return StudyImage(name, uri, "CT", None, file.shape, file.spacing_mm)
