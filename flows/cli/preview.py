"""`vividmed preview`: one report with its images through all the steps."""

from __future__ import annotations

import sys
import webbrowser
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.near_misses import perhaps
from flows.cli.options import ConfigOption, JsonOption, SourceOption, notes, out, rule
from storage.inputs import home

if TYPE_CHECKING:
    from dashboard.summary import DatasetSummary
    from storage.datasets.reader import DatasetReader, Study
    from storage.records import Row
    from storage.rejects import Reject
    from tasks.ground import GroundedStudy
    from tasks.pipeline.settings import BuildSettings

_MISTAKEN = "give a study's id, or a report with --text FILE and its images with --image FILE"


def preview(
    study: Annotated[str | None, typer.Argument(help="Study id, such as chest-ct-nodule.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Where to look for the study; in all, unless given.")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="A file with a report, or -.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="Its images: files, or folders of a DICOM series.")
    ] = None,
    view: Annotated[
        str | None, typer.Option(help="View position of films that do not state it, such as PA.")
    ] = None,
    config: ConfigOption = None,
    source: SourceOption = None,
    output: Annotated[Path | None, typer.Option(help="The page to write.")] = None,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Take one report with its images through all the steps, and show what each makes of it."""
    from flows.cli.json_output import print_json
    from storage.inputs import fetch
    from tasks.pipeline.one_report import ground_one, study_of
    from tasks.pipeline.settings import (
        SettingsError,
        inputs_of_engines,
        make_settings,
        read_settings,
    )

    if (study is None) == (text is None) or (text is None) != (image is None):
        raise SettingsError(_MISTAKEN)
    page = output or home() / "preview.html"
    _write(page, "", "a")  # a place that cannot be written is told before any work
    if text is not None:
        name = dataset or "openi"
        given = study_of(_read(text), image or [], view)
    else:
        assert study is not None  # noqa: S101 for the type checker
        name, given = _find(study, dataset, source)
    chosen = {"dataset": name}
    settings = read_settings(config, chosen) if config else make_settings(chosen)
    fetch(inputs_of_engines(settings), notes.print)
    found = ground_one(given, settings)
    _write(page, _html(given, found, settings))
    if as_json:
        print_json(_as_json(given, found) | {"page": page})
        return
    _print(given, found)
    out.print(f"page: {page}", soft_wrap=True)
    if open_page and sys.stdout.isatty():
        webbrowser.open(page.absolute().as_uri())


def _read(file: Path) -> str:
    from tasks.pipeline.settings import SettingsError

    if str(file) == "-":
        return sys.stdin.buffer.read().decode(errors="replace")
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SettingsError(f"--text {file} cannot be read: {error.strerror}") from error


def _find(study_id: str, dataset: str | None, source: Path | None) -> tuple[str, Study]:
    """The data set that has a study, and the study."""
    from storage.datasets.reader import DatasetError, Study
    from storage.datasets.registry import dataset_names, find_declaration

    names = [dataset] if dataset else dataset_names()
    seen: list[str] = []
    refused = ""
    for name in names:
        try:
            reader = find_declaration(name).open(source)
            for found in _candidates(reader, study_id, seen):
                if isinstance(found, Study):
                    return name, found
                refused = found.detail
        except DatasetError:
            if dataset:
                raise  # else it is a data set that is not on this machine
    if refused:
        raise DatasetError(f"{study_id} cannot be used: {refused}")
    raise DatasetError(
        f"there is no study {study_id} in {', '.join(names)}{perhaps(study_id, seen)}"
    )


def _candidates(reader: DatasetReader, study_id: str, seen: list[str]) -> Iterator[Study | Reject]:
    """What a reader has of a study id; `seen` gets the ids that it has.

    Where the first record is found by its study id, all are: only the study itself is read.
    """
    first = next(reader.records(), None)
    if first is None:
        return
    [read] = reader.read([first])
    if read.study_id == first.key:
        for record in reader.records():
            if record.key == study_id:
                yield from reader.read([record])
            seen.append(record.key)
    else:
        for found in reader.read(reader.records()):
            if found.study_id == study_id:
                yield found
            seen.append(found.study_id)


def _print(study: Study, found: GroundedStudy) -> None:
    from flows.cli.fitting import print_table
    from flows.cli.tables import highlighted, phrase_table, rows_table, tag_table

    annotation = found.annotation
    rule("clean")
    reports = annotation.reports.to_pylist()
    for passage in (p for report in reports for p in report["removed"]):
        out.print(f"removed or rewritten: {passage}", style="dim", highlight=False)
    for reject in annotation.clean.rejects:
        out.print(f"not read: {reject.detail} ({reject.reason})", highlight=False)
    for report in reports:
        for section in ("findings", "impression"):
            if report[section]:
                out.print(f"{section}: {report[section]}", highlight=False)
    rule("extract, filter")
    kept = annotation.positives.to_pylist()
    if kept:
        print_table(phrase_table([row | row["modifiers"] for row in kept]), out)
    if dropped := annotation.filter.rejects:
        columns = ("phrase", "reason")
        words = {
            f"{p['section']}:{p['start']}": p["phrase"] for p in annotation.phrases.to_pylist()
        }
        rows = [(words.get(r.record or "", r.record), r.reason) for r in dropped]
        print_table(rows_table(columns, rows), out)
    rule("detect, segment")
    for image in study.images:
        out.print(f"{image.image_id}: {image.modality} {image.view or ''}".rstrip())
    counts = Counter(r.reason for output in (found.detect, found.segment) for r in output.rejects)
    boxes, masks = found.detect.rows.num_rows, found.segment.rows.num_rows
    out.print(f"{boxes} boxes, {masks} masks")
    for reason, count in counts.most_common():
        out.print(f"not localized: {reason} {count}", style="yellow", highlight=False)
    rule("assemble")
    for grounded in found.reports:
        spans = [
            (tag.start, tag.end, "yellow" if tag.grounding.kind == "none" else "bold green")
            for tag in grounded.tags
        ]
        out.print(highlighted(grounded.text, spans))
        volumes = {
            tag.mask_key: tag.grounding.mask.volume_mm3
            for tag in grounded.tags
            if tag.grounding.mask
        }
        print_table(tag_table([tag.to_row() for tag in grounded.tags], volumes), out)


def _as_json(study: Study, found: GroundedStudy) -> dict[str, Any]:
    """What each step made of the study: rows of the store's tables, and rejects by step."""
    text = found.annotation
    return {
        "images": [vars(image) for image in study.images],
        "clean_reports": text.reports.to_pylist(),
        "phrases": text.phrases.to_pylist(),
        "positives": text.positives.to_pylist(),
        "grounded_reports": [report.to_row() for report in found.reports],
        "rejects": {
            step: [{"record": r.record, "reason": r.reason, "detail": r.detail} for r in of_step]
            for step, of_step in found.rejects.items()
        },
    }


def _html(study: Study, found: GroundedStudy, settings: BuildSettings) -> str:
    from dashboard.preview import preview_page

    removed = [p for report in found.annotation.reports.to_pylist() for p in report["removed"]]
    images: dict[str | None, Row] = {image.image_id: vars(image) for image in study.images}
    return preview_page(_summary(found, settings.dataset), found.reports, removed, images)


def _write(page: Path, html: str, mode: Literal["w", "a"] = "w") -> None:
    from tasks.pipeline.settings import SettingsError

    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open(mode, encoding="utf-8") as stream:
            stream.write(html)
    except OSError as error:
        raise SettingsError(f"--output {page} cannot be written: {error.strerror}") from error


def _summary(found: GroundedStudy, dataset: str) -> DatasetSummary:
    from dashboard.summary import DatasetSummary

    tags = [tag for report in found.reports for tag in report.tags]
    rejects = Counter(
        (step, reject.reason) for step, rejects in found.rejects.items() for reject in rejects
    )
    return DatasetSummary(
        dataset=dataset,
        predictions=0,
        studies_read=1,
        reports_kept=found.annotation.reports.num_rows,
        phrases_found=found.annotation.phrases.num_rows,
        phrases_kept=found.annotation.positives.num_rows,
        tags=len(tags),
        grounded_tags=sum(tag.grounding.kind != "none" for tag in tags),
        rejects=tuple(rejects.most_common()),
    )
