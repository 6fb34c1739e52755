"""Which report belongs to which study of a DICOM folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from storage.datasets.own_archive.checks import Checked
from storage.datasets.own_archive.columns import ColumnMap, understand
from storage.datasets.own_archive.dicom_folder import DicomFolder, files_below
from storage.datasets.own_archive.table_form import columns_of, recognize_form
from storage.datasets.reader import DatasetError
from storage.datasets.row_index import RowIndex

REPORT_SUFFIXES = (".txt", ".text", ".rpt")
DOCUMENT_SUFFIXES = (".rtf", ".doc", ".docx", ".odt", ".pdf", ".html", ".htm", ".xml", ".hl7")
"""Of files that may hold a report and are no plain text."""

_TEXTS = ("findings", "impression", "report")
_OF_STUDY = (*_TEXTS, "split")
"""Columns of a table of reports that the index takes over; patients are those of the headers."""


class StudyNames:
    """What reports may call the studies of a folder; a name may be that of several.

    The own name of a study, such as its accession number, is no name of another, whose folder or
    patient may be called the same.

    only: the one study that there is, if there is one alone.
    """

    def __init__(self, dicom: DicomFolder) -> None:
        self._studies = _by_name(dicom.other_names()) | _by_name(dicom.own_names())
        self.only: str | None = None
        if len(studies := set(islice(dicom.studies(), 2))) == 1:
            self.only = studies.pop()

    def find(self, name: str) -> str | None:
        """The one study that has this name."""
        return self._studies.get(_form(name))

    def is_of_several(self, name: str) -> bool:
        """Whether several studies have this name."""
        return self._studies.get(_form(name), "") is None


def _by_name(names: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    """The study of each name; None where several have it."""
    found: dict[str, str | None] = {}
    for name, study in names:
        form = _form(name)
        if found.setdefault(form, study) != study:
            found[form] = None
    return found


def _form(name: str) -> str:
    return name.strip().casefold()


class ReportTexts:
    """Files of whole reports, found by their names or folders.

    A file is a study's if its name, a word of it, or the folder that it is in is a name of the
    study, or the folder holds DICOM objects of this study alone. Of a single study, every file is.
    """

    columns: Sequence[str] = ("report_file",)

    def __init__(self, folder: Path, dicom: DicomFolder, checked: Checked) -> None:
        self.folder = folder
        names = StudyNames(dicom)
        found: dict[str, list[str]] = {}
        for path in files_below(folder):
            name = path.relative_to(folder).as_posix()
            if path.suffix.lower() in DOCUMENT_SUFFIXES:
                checked.remark("report_not_text", name)
            if path.suffix.lower() not in REPORT_SUFFIXES:
                continue
            study = self._study(path, names, dicom.folder)
            if study is None:
                several = any(map(names.is_of_several, self._may_name(path, dicom.folder)))
                checked.remark("report_of_several" if several else "report_of_no_study", name)
            else:
                found.setdefault(study, []).append(name)
        self._files = found
        for study, files in found.items():
            if len(files) > 1:
                checked.fault(
                    "several_reports", f"study {dicom.name_of(study)}: {', '.join(files[:3])}"
                )

    def __len__(self) -> int:
        return len(self._files)

    def of(self, study: str) -> Mapping[str, str]:
        """The cells of a study; none where no report, or more than one, is its."""
        files = self._files.get(study, ())
        return {"report_file": files[0]} if len(files) == 1 else {}

    def _study(self, path: Path, names: StudyNames, dicom: Path) -> str | None:
        for name in self._may_name(path, dicom):
            if study := names.find(name):
                return study
        return names.only

    def _may_name(self, path: Path, dicom: Path) -> Iterator[str]:
        yield path.stem
        yield from re.split(r"[_\s]+", path.stem)
        for above in path.relative_to(self.folder).parents:
            if above.name:
                if path.is_relative_to(dicom):
                    yield (self.folder / above).relative_to(dicom).as_posix()
                yield above.name


class ReportTable:
    """A table of reports, a row a study, found by the study's name in the table."""

    def __init__(
        self,
        table: Path,
        given: Mapping[str, Sequence[str]],
        encoding: str | None,
        dicom: DicomFolder,
        checked: Checked,
    ) -> None:
        """Read the table.

        Raises:
            DatasetError: if it cannot be read, or no column holds text.
        """
        self.form = recognize_form(table, encoding)
        self.map: ColumnMap = understand(table, columns_of(table, self.form), given)
        held = self.map.columns
        self.columns = tuple(name for name in _OF_STUDY if name in held)
        if not set(_TEXTS) & held.keys():
            raise DatasetError(
                f"{table}: no column is known to hold text: name it, such as --columns "
                f"report={self.map.unused[0] if self.map.unused else 'Text'}"
            )
        names = StudyNames(dicom)
        key = str(held["study_id"])
        kept = [str(held[name]) for name in self.columns]
        self._rows = RowIndex(
            table,
            lambda row: names.find(row.cells.get(key, "")) or "",
            [key, *kept],
            form=self.form,
        )
        self._held = {name: str(held[name]) for name in self.columns}
        for row in self._rows.rows(""):
            if row.fault:
                checked.fault("row_malformed", f"{table.name} row {row.number}: {row.fault}")
            else:
                several = names.is_of_several(row.cells.get(key, ""))
                code = "report_of_several" if several else "report_of_no_study"
                checked.remark(code, f"{table.name} row {row.number}")
        self._checked, self._table, self._dicom = checked, table, dicom

    def __len__(self) -> int:
        return sum(1 for key in self._rows.keys() if key)  # noqa: SIM118 it is no mapping

    def of(self, study: str) -> Mapping[str, str]:
        """The cells of a study; none where no row, or several that differ, are its."""
        cells = [
            {name: row.cells.get(column, "") for name, column in self._held.items()}
            for row in self._rows.rows(study)
        ]
        if any(other != cells[0] for other in cells[1:]):
            numbers = ", ".join(str(row.number) for row in self._rows.rows(study))
            name = self._dicom.name_of(study)
            self._checked.fault(
                "several_reports", f"study {name}: {self._table.name} row {numbers}"
            )
            return {}
        return cells[0] if cells else {}
