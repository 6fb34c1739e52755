"""`vividmed ingest`: look through an archive of your own, and declare it as a data set."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, notes, out

if TYPE_CHECKING:
    from storage.datasets.own_archive.checks import Checked, Finding
    from storage.datasets.own_archive.looked import Looked
    from storage.datasets.own_archive.request import Noted, Progress, Request

_MODALITIES = {"OT": "of a modality that the file does not state"}
_EVERY = 100
"""Files or studies after which the count on the screen is renewed."""


def ingest(
    name: Annotated[str, typer.Argument(help="What the archive is to be called.")],
    more_columns: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=COLUMN", help="As of --columns.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="CSV, TSV, JSONL or Parquet: a row a study or an image.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="What paths in the table lie below, if not its folder.")
    ] = None,
    dicom: Annotated[
        Path | None, typer.Option(help="Folder of DICOM studies, in any order.")
    ] = None,
    reports: Annotated[
        Path | None, typer.Option(help="Folder of report files, or with --dicom also a table.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="What a column holds, such as study_id=Accession findings=Befund."),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of a table or of reports that are not UTF-8: cp1252, …")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Percent of the patients to train, validate and test on: 80/10/10."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Declare it in spite of faults.")
    ] = False,
    findings: Annotated[
        Path | None,
        typer.Option(help="CSV to write all faults and remarks to; the first are printed."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The declaration to write; data/datasets/NAME.yaml if none.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check your own archive and declare it; `vividmed build NAME` then builds it."""
    from storage.datasets.own_archive.columns import parse_given
    from storage.datasets.own_archive.declare import parse_split, require_free
    from storage.datasets.own_archive.request import Request

    file = _declaration_file(name, output)
    require_free(file)
    given = parse_given([*(columns or ()), *(more_columns or ())])
    percent = parse_split(split)
    with _progress() as progress, _list_of_findings(findings) as noted:
        request = Request(file, reports, given, encoding, percent, progress, _refused, noted)
        looked = _look(request, table, images, dicom)
    try:
        written = looked.checked.studies > 0 and (skip_bad or not looked.checked.faults)
        if written:
            _write(looked, file)
    finally:
        if looked.index is not None:
            shutil.rmtree(looked.index, ignore_errors=True)
    if as_json:
        _print_json(looked, file if written else None)
    else:
        _print(looked, skip_bad=skip_bad, listed=findings)
        if written:
            _print_next(name, file, looked, output)
    if not written:
        raise typer.Exit(1)


def _look(request: Request, table: Path | None, images: Path | None, dicom: Path | None) -> Looked:
    """Understand the table or the folder, and check all of it."""
    from storage.datasets.own_archive.dicom_archive import look_at_dicom
    from storage.datasets.own_archive.index import require_replaceable
    from storage.datasets.own_archive.table_archive import look_at_table
    from storage.datasets.reader import DatasetError

    if table is not None and dicom is None:
        return look_at_table(request, table, images)
    if dicom is not None and table is None:
        if images is not None:
            raise DatasetError(
                "--images is about the paths in a table; the folder of --dicom holds the images"
            )
        require_replaceable(request.file.with_suffix(""))
        return look_at_dicom(request, dicom)
    raise DatasetError(
        "give a table of studies with --table, or a folder of DICOM studies with --dicom"
    )


def _refused(text: str) -> tuple[str, str] | None:
    """Why the cleaning of a build would not read a text."""
    from tasks.engines.text.cleaning import refusal

    failure = refusal(text)
    return (failure.reason, failure.detail) if failure else None


def _declaration_file(name: str, output: Path | None) -> Path:
    from storage.datasets.declaration import NAME_RULE, is_usable_in_paths
    from storage.datasets.reader import DatasetError
    from storage.datasets.registry import is_file_name, own_folder, published_names

    if not is_usable_in_paths(name):
        raise DatasetError(f"{name!r} cannot be the name of a data set: {NAME_RULE}")
    if name in published_names():
        raise DatasetError(f"there is a data set {name} already: give the archive another name")
    if output is None:
        return own_folder() / f"{name}.yaml"
    if not is_file_name(output.name) or output.stem != name:
        raise DatasetError(
            f"--output {output}: a data set is named by its file: write {name}.yaml at its end"
        )
    return output.absolute()


def _write(looked: Looked, file: Path) -> None:
    """Put the table of a DICOM folder and the declaration in their places."""
    from storage.datasets.own_archive.declare import write
    from storage.datasets.own_archive.index import put_in_place

    if looked.index is not None:
        put_in_place(looked.index, file.with_suffix(""))
    write(looked.values, file)


@contextmanager
def _list_of_findings(file: Path | None) -> Iterator[Noted]:
    """Write each finding to a file as it comes, for a spreadsheet; to none where none is named."""
    from storage.datasets.own_archive.request import not_noted
    from storage.datasets.reader import DatasetError

    if file is None:
        yield not_noted
        return
    try:
        stream = file.open("w", newline="", encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"--findings {file} cannot be written: {error.strerror}") from error
    with stream:
        writer = csv.writer(stream)
        writer.writerow(("kind", "code", "finding"))
        yield lambda *finding: writer.writerow(finding)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A line that says what is done, and how far it is."""
    with notes.status("") as line:

        def begin(what: str) -> Callable[[], None]:
            line.update(f"{what} …")
            count = 0

            def tick() -> None:
                nonlocal count
                count += 1
                if count % _EVERY == 0:
                    line.update(f"{what} … {count:,}")

            return tick

        yield begin


def _print(looked: Looked, *, skip_bad: bool, listed: Path | None) -> None:
    from flows.cli.options import rule

    checked = looked.checked
    rule("understood")
    told = dict(looked.understood)
    if looked.columns:
        for holds, column in looked.columns.columns.items():
            told[holds] = column if isinstance(column, str) else ", ".join(column)
        if looked.columns.unused:
            told["not used"] = ", ".join(looked.columns.unused)
    _pairs(told)
    rule("found")
    _pairs(_counts(checked))
    if checked.remarks:
        rule("remarks")
        _findings(checked.remarks, "yellow")
    if checked.faults:
        rule("faults")
        _findings(checked.faults, "red")
    if checked.faults and looked.index is None:
        out.print("  (rows are counted from 1, the names of the columns not counted)", style="dim")
    found = (*checked.remarks.values(), *checked.faults.values())
    if listed is not None:
        out.print(f"all of them: {listed}", highlight=False, soft_wrap=True)
    elif any(_is_cut(finding) for finding in found):
        out.print("--findings FILE.csv lists all of them", highlight=False, soft_wrap=True)
    if checked.faults:
        out.print(_verdict(checked, skip_bad=skip_bad), highlight=False, soft_wrap=True)
    elif not checked.studies:
        out.print("there is no study to build: nothing was written", style="red")


def _pairs(told: dict[str, str]) -> None:
    width = max(map(len, told))
    for what, said in told.items():
        out.print(f"  {what:{width}}  {said}", highlight=False, soft_wrap=True)


def _counts(checked: Checked) -> dict[str, str]:
    splits = ", ".join(f"{split}: {n:,}" for split, n in checked.splits.items())
    told = {"studies": f"{checked.studies:,}" + (f" ({splits})" if len(checked.splits) > 1 else "")}
    if checked.patients:
        told["patients"] = f"{checked.patients:,}"
    kinds = [f"{n:,} {_MODALITIES.get(m, m)}" for m, n in checked.images.most_common()]
    told["images"] = ", ".join(kinds) or "none"
    if checked.sections:
        told["reports"] = ", ".join(f"{n:,} {what}" for what, n in checked.sections.most_common())
    return told


def _findings(findings: dict[str, Finding], style: str) -> None:
    from storage.datasets.own_archive.checks import meaning

    for code, finding in findings.items():
        said = f"{finding.count:,} {code}: {meaning(code)}"
        lines = wrap(said, out.width, initial_indent="  ", subsequent_indent="    ")
        out.print("\n".join(lines), style=style, highlight=False)
        for example in finding.examples:
            out.print(f"      {example}", highlight=False, soft_wrap=True)
        if _is_cut(finding):
            out.print("      …")


def _is_cut(finding: Finding) -> bool:
    """Whether only the first of a kind are told."""
    return finding.count > len(finding.examples) > 1


def _verdict(checked: Checked, *, skip_bad: bool) -> str:
    if skip_bad and checked.studies:
        return "declared in spite of them"
    if not checked.studies:
        return "no study can be used: nothing was written"
    return (
        "nothing was written: mend these, or declare the archive in spite of them with --skip-bad"
    )


def _print_next(name: str, file: Path, looked: Looked, output: Path | None) -> None:
    checked = looked.checked
    which = str(file) if output else name
    out.print(f"declaration: {file}", soft_wrap=True, highlight=False)
    if checked.has_one_section:
        out.print("no study has both findings and impression: one is enough (`sections: any`)")
    out.print(f"next: vividmed build {which}", soft_wrap=True, highlight=False)


def _print_json(looked: Looked, file: Path | None) -> None:
    from flows.cli.json_output import print_json

    checked = looked.checked

    def plain(findings: dict[str, Finding]) -> dict[str, Any]:
        return {code: vars(finding) for code, finding in findings.items()}

    print_json(
        {
            "declaration": file,
            "understood": looked.understood,
            "columns": looked.columns.columns if looked.columns else None,
            "unused_columns": looked.columns.unused if looked.columns else None,
            "studies": checked.studies,
            "rejected": checked.rejected,
            "patients": checked.patients,
            "splits": checked.splits,
            "images": checked.images,
            "reports": checked.sections,
            "remarks": plain(checked.remarks),
            "faults": plain(checked.faults),
        }
    )
