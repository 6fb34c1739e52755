"""An archive as a folder of DICOM studies, with reports in text files or in a table."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from storage.datasets.own_archive.checks import Checked
from storage.datasets.own_archive.declare import values_of
from storage.datasets.own_archive.dicom_folder import IMAGE_SUFFIXES, DicomFolder
from storage.datasets.own_archive.index import TABLE, write_index
from storage.datasets.own_archive.looked import (
    TEXTS,
    Looked,
    check,
    remark_unused_reports,
    splits_of,
    told_splits,
)
from storage.datasets.own_archive.reports import REPORT_SUFFIXES, ReportTable, ReportTexts
from storage.datasets.own_archive.request import Request
from storage.datasets.reader import DatasetError
from storage.datasets.rows import USUAL


def look_at_dicom(request: Request, folder: Path) -> Looked:
    """Understand a folder of DICOM studies with their reports, and check it.

    Args:
        request: its columns are of the table of reports; without reports, text files are looked
            for beside the images.
        folder: of DICOM files, in any order.

    Raises:
        DatasetError: if there is nothing to read.
    """
    if not folder.is_dir():
        raise DatasetError(f"--dicom {folder}: this is no folder")
    file, percent = request.file, request.percent
    checked = Checked(noted=request.noted)
    dicom = DicomFolder(folder.absolute(), checked, request.progress("reading DICOM headers"))
    texts = _reports(request, dicom, checked)
    columns = texts.map if isinstance(texts, ReportTable) else None
    split_column = "split" if texts and "split" in texts.columns and not percent else None
    file.parent.mkdir(parents=True, exist_ok=True)
    index = Path(tempfile.mkdtemp(prefix=f".{file.stem}-", dir=file.parent))
    try:
        write_index(index, dicom, texts, checked, request.progress("looking at series"))
        layout = _layout(texts, request.encoding)
        splits = list(percent) or ["train"]
        if percent:
            layout["split_by_patient"] = dict(percent)
        elif split_column:
            own = f"{request.reports}: {columns.columns['split']}" if columns else None
            splits, layout["splits"] = splits_of(index / TABLE, USUAL, split_column, own)
            layout["columns"]["split"] = split_column
        values = values_of(
            file.stem, layout, folder=index, splits=splits, reports=texts is not None
        )
        values = check(values, request, checked, is_own_table=False)
    except BaseException:
        shutil.rmtree(index, ignore_errors=True)
        raise
    for suffix, count in dicom.other_files.items():
        if suffix not in REPORT_SUFFIXES:
            kind = "image_not_dicom" if suffix in IMAGE_SUFFIXES else "not_dicom"
            checked.remark(kind, f"{count:,} {suffix}", count)
    understood = {
        "DICOM folder": str(folder.absolute()),
        "study id": "accession number" if dicom.is_known_by_accession else "Study Instance UID",
        "reports": _told_reports(texts, request.reports or folder),
        "splits": told_splits(percent, splits, split_column),
    }
    return Looked(understood, values | {"folder": file.stem}, checked, columns, index)


def _reports(
    request: Request, dicom: DicomFolder, checked: Checked
) -> ReportTexts | ReportTable | None:
    """The reports that the user named, or the text files beside the images; None without any."""
    reports, given = request.reports, request.given
    if reports is not None and reports.is_file():
        table = ReportTable(reports.absolute(), given, request.encoding, dicom, checked)
        remark_unused_reports(reports.absolute(), table.form, table.map, checked)
        return table
    if given:
        raise DatasetError("--columns is about a table of reports: name it with --reports")
    if reports is not None and not reports.is_dir():
        raise DatasetError(f"--reports {reports}: there is no such folder or table")
    texts = ReportTexts((reports or dicom.folder).absolute(), dicom, checked)
    if reports is not None and not len(texts):
        raise DatasetError(
            f"--reports {reports}: none of its files ({', '.join(REPORT_SUFFIXES)}) has the name "
            "of a study: its accession number, its Study Instance UID or its folder"
        )
    return texts if len(texts) else None


def _layout(texts: ReportTexts | ReportTable | None, encoding: str | None) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "study_id": "study_id",
        "patient_id": "patient_id",
        "image_id": "image_id",
        "images": ["image"],
    }
    layout: dict[str, Any] = {"table": TABLE, "columns": columns}
    columns |= {name: name for name in (texts.columns if texts else ()) if name in TEXTS}
    if isinstance(texts, ReportTexts):
        layout["reports"] = str(texts.folder)
        if encoding:
            layout["report_encoding"] = encoding
    return layout


def _told_reports(texts: ReportTexts | ReportTable | None, place: Path) -> str:
    if texts is None:
        return f"none found in {place}: the studies are only ingested"
    kind = "rows" if isinstance(texts, ReportTable) else "text files"
    return f"{kind} of {place} for {len(texts):,} studies"
