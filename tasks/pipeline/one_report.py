"""One report outside of a run, with the engines that the settings choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from storage.datasets.reader import Study, StudyImage
from storage.images.loading import describe_image
from storage.records import Assertion, Category, Match, Modifiers
from storage.rejects import Reject
from storage.shards import Part
from tasks.annotate import annotate_texts
from tasks.ground import GroundedStudy, ground_study
from tasks.pipeline.engine_choice import Engines, choose_engines
from tasks.pipeline.settings import BuildSettings
from tasks.pipeline.taxonomies import taxonomy_of
from taxonomy.targets import Taxonomy

_NOTHING_LEFT = ("no_text", "report_emptied")
"""Reasons of reports that were read, and of which cleaning left nothing."""


@dataclass(frozen=True)
class AnnotatedPhrase:
    """Words that name a target, and what the text states of it.

    start, end: code points, half-open: `text[start:end] == phrase`, in the cleaned text.
    by_rules: the rules found or judged it in place of a language model that failed at its sentence.
    """

    start: int
    end: int
    phrase: str
    target: str
    category: Category
    assertion: Assertion
    modifiers: Modifiers
    match: Match
    by_rules: bool = False


@dataclass(frozen=True)
class AnnotatedText:
    """What the text steps made of a text.

    text: the cleaned text, in which the phrases are.
    removed: passages that cleaning dropped or rewrote, as they were.
    phrases: of every assertion, in order of start.
    rejected: why the text was set aside, such as another language; None if it was read.
    by_rules: sentences that the rules cleaned in place of a language model that failed at them.
    """

    text: str
    removed: tuple[str, ...]
    phrases: tuple[AnnotatedPhrase, ...]
    rejected: Reject | None = None
    by_rules: tuple[str, ...] = ()


def annotate_text(text: str, settings: BuildSettings) -> AnnotatedText:
    """Clean a text, find the phrases that name a target, and classify each."""
    engines, taxonomy = _engines(settings)
    found = annotate_texts([text], engines, taxonomy)
    if set_aside := [r for r in found.clean.rejects if r.reason not in _NOTHING_LEFT]:
        return AnnotatedText("", (), (), set_aside[0])
    emptied = {"findings": "", "removed": [text] if text else [], "by_rules": []}
    [report] = found.reports.to_pylist() or [emptied]
    phrases = (
        AnnotatedPhrase(
            row["start"],
            row["end"],
            row["phrase"],
            row["target"],
            row["category"],
            row["assertion"],
            Modifiers.from_row(row["modifiers"]),
            row["match"],
            row["by_rules"],
        )
        for row in found.positives.to_pylist()
    )
    return AnnotatedText(
        report["findings"],
        tuple(report["removed"]),
        tuple(phrases),
        by_rules=tuple(report["by_rules"]),
    )


def study_of(text: str, images: Sequence[Path], view: str | None = None) -> Study:
    """A study made of a report and the images that belong to it.

    Args:
        text: the report, which may have headings.
        images: DICOM, PNG or JPEG files of radiographs; NIfTI files, or folders of one DICOM
            series, of CT volumes.
        view: view position of radiographs whose files do not state it.

    Raises:
        ImageError: if an image cannot be read.
    """
    return Study("report", text, None, "given", images=tuple(_image(p, view) for p in images))


def ground_one(study: Study, settings: BuildSettings) -> GroundedStudy:
    """Annotate the report of a study, and localize what it states in its images."""
    engines, taxonomy = _engines(settings)
    return ground_study(
        study,
        Part(settings.dataset, "given", 0),
        engines,
        engines.detector,
        engines.segmenter,
        taxonomy,
        settings.positive,
        engines.names() | {"taxonomy": taxonomy.digest("all")},
    )


def _image(path: Path, view: str | None) -> StudyImage:
    said = describe_image(path)
    return StudyImage(
        image_id=str(path),
        uri=str(path.absolute()),
        modality=said.modality,
        view=said.view or view,
        shape=said.shape,
        spacing_mm=said.spacing_mm,
    )


@cache
def _engines(settings: BuildSettings) -> tuple[Engines, Taxonomy]:
    """Made once per process: the lexicon and the atlas take a second each."""
    taxonomy = taxonomy_of(settings)
    return choose_engines(settings, taxonomy), taxonomy
