"""Every study of an archive, read as a build reads it, and what is wrong with which.

A fault makes a build reject a record or leave out an image. A remark does not: the study is read,
and something about it may not be meant so. No text of a report stands in either.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from storage.datasets.own_archive.request import Noted, Refuses, not_noted
from storage.datasets.reader import SourceRecord, Study, StudyImage
from storage.datasets.rows import Row
from storage.datasets.table import TableReader
from storage.images.loading import check_grey, describe_image
from storage.images.types import ImageError
from storage.images.vocabulary import is_radiograph, is_volume, view_positions
from storage.reasons import explain
from storage.rejects import Reject

_ROUNDED = re.compile(r"\d[.,]\d+E\+?\d+")
_FORMULA = re.compile(r"=[A-Z$\"][^\n]*", re.IGNORECASE)

_OF_A_FILM = 2
"""Axes of a radiograph; a volume has three."""

_ROWS_TOLD = 5
"""Rows of a study whose numbers are told; a row may be a slice."""

EXAMPLES = 3
"""Of each kind of fault, how many are told."""

REMARKS = {
    "no_text": "studies without any text: a build rejects them",
    "language_not_supported": "studies whose report is not in English: a build rejects them",
    "too_long_to_read": "studies whose findings or impression are longer than any report: a build "
    "rejects them",
    "one_section": "studies with only one of findings and impression: a build rejects them unless "
    "it is given --require-sections any",
    "report_not_used": "rows with a report beside findings or an impression: only these are read",
    "no_images": "studies without an image: their phrases stay ungrounded",
    "view_not_known": "views that are no known view position: taken for frontal; "
    "`layout.views` in the declaration can rename them",
    "view_not_stated": "radiographs whose view is stated nowhere: taken for frontal, also lateral "
    "ones; name a column that says it with --columns view=…",
    "not_part_of_series": explain("not_part_of_series"),
    "other_modality": "DICOM objects of a kind that is not read",
    "same_object": "copies of a DICOM object that is there already",
    "no_series_image": "series that hold no CT slice or no radiograph that can be read",
    "report_of_no_study": "reports that name no study of the folder: the report's file, its folder "
    "or its row must have the accession number, the Study Instance UID or the folder of the study",
    "report_of_several": "reports whose name names several studies of the folder: "
    "give the file or the row the Study Instance UID for a name",
    "no_patient": "studies without a patient: each counts as a patient of its own, so that two of "
    "one person may come into two splits",
    "same_row": "rows that say the same as another row of their study: they count once",
    "rounded_id": "study ids in scientific notation: a spreadsheet has rounded them, and several "
    "studies may have become one: export the table again, with this column as text",
    "formula": "cells that hold a spreadsheet's formula, as =A2&B2, not what it gives: they are "
    "taken as they stand: export the table again with its values",
    "one_patient": "all studies have one patient id, as some anonymizers write: no split by "
    "patient can be made",
    "column_of_paths": "columns that seem to hold paths of images and are not used: name them with "
    "--columns images=…",
    "column_of_reports": "columns that seem to hold paths of reports and are not used: name one "
    "with --columns report_file=…",
    "no_text_column": "no column is known to hold text, so the studies are only ingested: name it "
    "with --columns, such as report=…",
    "image_not_dicom": "images in files of other kinds among the DICOM files: to read them, name "
    "them in a table, and give it with --table",
    "report_not_text": "files among the reports that are no plain text and are not read",
    "not_dicom": "files that are no DICOM and no report",
}
"""What is told and stops nothing, by a code."""

BOTH = "findings and impression"
"""What the counts by section call studies that have both."""

OWN_FAULTS = {
    "several_reports": "Studies with several reports, of which none is preferred.",
}


@dataclass
class Finding:
    """One kind of fault or remark: how many, and the first of them as sentences."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Checked:
    """What was found in an archive.

    studies, rejected: those that a build reads, and those that it rejects.
    images: by modality; those that can be used.
    noted: gets every fault and remark, of which only the first are kept.
    """

    studies: int = 0
    rejected: int = 0
    patients: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    sections: Counter[str] = field(default_factory=Counter)
    faults: dict[str, Finding] = field(default_factory=dict)
    remarks: dict[str, Finding] = field(default_factory=dict)
    noted: Noted = not_noted

    @property
    def has_one_section(self) -> bool:
        """Whether no study has both sections, so that one must be enough."""
        return not self.sections[BOTH] and bool(self.sections.keys() & {"findings", "impression"})

    @property
    def volumes(self) -> int:
        """How many images are volumes."""
        return sum(n for modality, n in self.images.items() if is_volume(modality))

    def fault(self, code: str, example: str) -> None:
        """Count a fault."""
        self._add("fault", code, example, 1)

    def remark(self, code: str, example: str, times: int = 1) -> None:
        """Count what stops nothing."""
        self._add("remark", code, example, times)

    def _add(self, kind: str, code: str, example: str, times: int) -> None:
        found = (self.faults if kind == "fault" else self.remarks).setdefault(code, Finding())
        found.count += times
        if len(found.examples) < EXAMPLES:
            found.examples.append(example)
        self.noted(kind, code, example)


def meaning(code: str) -> str:
    """A kind of fault or remark in words."""
    return REMARKS.get(code) or OWN_FAULTS.get(code) or explain(code)


def check_studies(
    reader: TableReader,
    result: Checked,
    *,
    refuses: Refuses | None,
    is_own_table: bool,
    tick: Callable[[], None],
) -> None:
    """Read every study and look at the headers of its images.

    Args:
        reader: of the declared archive.
        result: counts are added to it.
        refuses: says of a text whether a build would read it; None if the archive has no texts.
        is_own_table: whether it is a table of the user, whose rows are told and whose images are
            looked at; those of a DICOM folder were already.
        tick: called after each study.
    """
    patients: dict[str, tuple[str, str]] = {}
    splits: deque[str] = deque()
    records = _kept(reader, result, patients, splits)
    for study in reader.read(records):
        split = splits.popleft()  # what is read comes in the order of the records
        if isinstance(study, Reject):
            result.rejected += 1
            result.fault(study.reason, study.detail)
        else:
            result.studies += 1
            result.splits[split] += 1
            where = f"study {study.study_id}"
            if is_own_table:
                where += _rows_told(reader.rows(study.study_id), result, where)
                _look_at_images(where, study, result)
            _look_at(where, study, result, refuses)
            if study.patient_id is None and reader.names_patients:
                result.remark("no_patient", where)
        tick()
    result.patients = len(patients)
    if len(patients) == 1 and result.studies > 1:
        result.remark("one_patient", f"{result.studies:,} studies")


def _kept(
    reader: TableReader,
    result: Checked,
    patients: dict[str, tuple[str, str]],
    splits: deque[str],
) -> Iterator[SourceRecord]:
    """The records whose patient is in no other split.

    Args:
        reader: gives the records.
        result: the others are counted as faults.
        patients: gets the first split and study of each patient.
        splits: gets the split of each record that is kept.
    """
    for record in reader.records():
        if record.patient_id is not None:
            split, study = patients.setdefault(record.patient_id, (record.split, record.key))
            if split != record.split:
                result.rejected += 1
                result.fault(
                    "patient_in_two_splits",
                    f"study {study} in {split} and study {record.key} in {record.split} are of one "
                    "patient",
                )
                continue
        splits.append(record.split)
        yield record


def _look_at(where: str, study: Study, result: Checked, refuses: Refuses | None) -> None:
    if refuses is not None:
        there = [name for name in ("findings", "impression") if getattr(study, name)]
        result.sections[" and ".join(there) or "neither"] += 1
        if not there:
            result.remark("no_text", where)
        elif len(there) == 1:
            result.remark("one_section", f"{where} has {there[0]} only")
        refused = filter(None, (refuses(getattr(study, name)) for name in there))
        if (reason := next(refused, None)) is not None:
            result.remark(reason[0], f"{where}: {reason[1]}")
    if _ROUNDED.fullmatch(study.study_id):
        result.remark("rounded_id", where)
    cells = {
        "the study id": study.study_id,
        "the patient id": study.patient_id,
        "findings": study.findings,
        "the impression": study.impression,
    }
    for what, cell in cells.items():
        if cell and _FORMULA.fullmatch(cell):
            result.remark("formula", f"{what} of {where}")


def _rows_told(rows: Sequence[Row], result: Checked, where: str) -> str:
    """The numbers of a study's rows, for people; rows that repeat another are counted."""
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        cells = tuple(row.cells.values())
        if cells in seen:
            result.remark("same_row", f"{where}, row {row.number}")
        seen.add(cells)
    numbers = ", ".join(str(row.number) for row in rows[:_ROWS_TOLD])
    return f" (row {numbers}{', …' if len(rows) > _ROWS_TOLD else ''})"


def _look_at_images(where: str, study: Study, result: Checked) -> None:
    if not study.images:
        result.remark("no_images", where)
    for left_out in study.left_out:
        if left_out.reason in REMARKS:
            result.remark(left_out.reason, f"{where}: {left_out.detail}")
        else:
            result.fault(left_out.reason, f"{where}: {left_out.detail}")
    for image in study.images:
        _look_at_image(where, image, result)


def _look_at_image(where: str, image: StudyImage, result: Checked) -> None:
    if image.shape is None:
        try:
            describe_image(Path(image.uri))
        except ImageError as error:
            is_told = len(result.faults.get(error.reason, Finding()).examples) < EXAMPLES
            look = is_told and error.reason == "image_not_found"  # it lists a folder, each time
            hint = _hint(Path(image.uri)) if look else ""
            if "," in image.uri and error.reason == "image_not_found":
                hint = "; several paths in a cell are separated by ; or |"
            result.fault(error.reason, f"{where}: {error.detail}{hint}")
            return
    elif len(image.shape) == _OF_A_FILM:
        try:
            check_grey(Path(image.uri))
        except ImageError as error:
            result.fault(error.reason, f"{where}: {error.detail}")
            return
    result.images[image.modality or "OT"] += 1
    if image.view is None and is_radiograph(image.modality or "OT"):
        result.remark("view_not_stated", where)
    elif image.view is not None and image.view not in view_positions():
        result.remark("view_not_known", f"{where}: {image.view!r}")


def _hint(path: Path) -> str:
    """What a path that leads nowhere may have meant."""
    for parent in path.parents:
        if parent.is_dir():
            wrong = path.relative_to(parent).parts[0]
            try:
                there = [file.name for file in parent.iterdir()]
            except OSError:
                return ""
            same = [name for name in there if name.casefold() == wrong.casefold()]
            near = same or get_close_matches(wrong, there, 1)
            return f"; perhaps {near[0]} was meant for {wrong}" if near else ""
    return ""
