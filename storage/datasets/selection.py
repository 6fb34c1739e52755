"""Rules that choose the studies of a data set, as the `selection` of its declaration lists them.

The ingest stage applies them in their order to every study that a reader gives. A study that a rule
takes out is a reject, an image that it takes out is left out, each with its reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from storage.datasets.downloads import find_files
from storage.datasets.reader import Study, StudyImage
from storage.funnel import FOUND, KEPT, NOT_READ, FunnelStep, added
from storage.images.vocabulary import projection

if TYPE_CHECKING:  # pyarrow, which naming a data set does not need
    from storage.rejects import Reject

SectionName = Literal["findings", "impression"]
RequiredSections = Literal["both", "any"]
"""`both`: findings and impression, as the paper asks; `any`: one of them is enough."""

Words = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


@dataclass(frozen=True)
class Source:
    """What rules know beside the study.

    folder: of the data set's files.
    require: the sections that the user asks for; None leaves it to the declaration.
    """

    folder: Path
    require: RequiredSections | None = None


class _Rule(BaseModel, ABC):
    """A rule: its name under `rule`, and what it has to know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def apply(self, study: Study, source: Source) -> Study | Reject:
        """The study, perhaps with less in it, or why it is taken out."""

    def files(self, source: Source) -> list[Path]:  # noqa: ARG002 most rules read none
        """Files of the data set that decide what the rule does."""
        return []


class HasSections(_Rule):
    """Sections that a report must have (spec 1.1: both, of MIMIC-CXR).

    A user's own `require_sections` counts in place of `sections`.
    """

    rule: Literal["has_sections"]
    sections: tuple[SectionName, ...] = ("findings", "impression")

    def apply(self, study: Study, source: Source) -> Study | Reject:
        """Reject a study without one of the sections."""
        sections = self.sections if source.require is None else ("findings", "impression")
        missing = [name for name in sections if not getattr(study, name)]
        if not missing or (source.require == "any" and len(missing) < len(sections)):
            return study
        if not (study.findings or study.impression):
            return _reject(study, "no_text", "the report has neither findings nor impression")
        return _reject(study, f"no_{missing[0]}", f"the report has no {missing[0]} section")


class CutImpression(_Rule):
    """Cut the impression before the first sentence that says who was told of it.

    A sentence ends at a full stop, and has one of the strings in it, in this case of letters, as in
    the paper's code; "Dr" is also in "Drain".
    """

    rule: Literal["cut_impression"]
    before_sentence_with: Words

    def apply(self, study: Study, source: Source) -> Study | Reject:  # noqa: ARG002
        """The study with the part of the impression before such a sentence."""
        impression, start = study.impression or "", 0
        for sentence in impression.split("."):
            if any(said in sentence for said in self.before_sentence_with):
                detail = f"the impression was cut at character {start} of {len(impression)}"
                return replace(
                    study,
                    impression=impression[:start].strip() or None,
                    left_out=(*study.left_out, _reject(study, "notification_cut", detail)),
                )
            start += len(sentence) + 1
        return study


class LeastWords(_Rule):
    """Words, between spaces, that a section must have; a section that is not there is no matter.

    An impression that a rule before this one has cut to nothing has no words, where both sections
    are required.
    """

    rule: Literal["least_words"]
    findings: Annotated[int, Field(ge=1, strict=True)] = 1
    impression: Annotated[int, Field(ge=1, strict=True)] = 1

    def apply(self, study: Study, source: Source) -> Study | Reject:
        """Reject a study with a shorter section."""
        for section, least, reason in (
            ("findings", self.findings, "findings_too_short"),
            ("impression", self.impression, "impression_too_short"),
        ):
            said = getattr(study, section)
            cut = section == "impression" and _was_cut(study) and source.require != "any"
            words = len((said or "").split())
            if (said or cut) and words < least:
                detail = f"the {section} section has {words} words, fewer than {least}"
                return _reject(study, reason, detail)
        return study


class FrontalViews(_Rule):
    """Only images whose view is frontal, and studies that have one.

    A study without any image stays: of a text that came alone, the views are not known.
    """

    rule: Literal["frontal_views"]

    def apply(self, study: Study, source: Source) -> Study | Reject:  # noqa: ARG002
        """The study with its frontal images, or a reject if it has others only."""
        return _with_images(
            study,
            {image.image_id: _not_frontal(image) for image in study.images},
            ("no_frontal_view", "none of the study's images is a frontal view"),
        )


class ChestVolumes(_Rule):
    """Only volumes that the lists of the data set do not name as ones of another region.

    lists: names of files with one volume a line, anywhere below the data set's folder; of a path
        the last part counts.
    """

    rule: Literal["chest_volumes"]
    lists: Words

    def apply(self, study: Study, source: Source) -> Study | Reject:
        """The study with its volumes of the chest, or a reject if it has others only."""
        listed = _listed(tuple(self.files(source)))
        named = {image.image_id for image in study.images}
        named |= {reject.image_id for reject in study.left_out if reject.image_id}
        none_left = ("not_chest", "all volumes of the study are listed as ones of another region")
        if named and named <= listed:  # volumes that are not on disk, too
            return _reject(study, *none_left)
        fault = ("not_chest", "the volume is listed as one of another region than the chest")
        faults = {name: fault if name in listed else None for name in named}
        return _with_images(study, faults, none_left)

    def files(self, source: Source) -> list[Path]:
        """The lists that are there."""
        return _lists(source.folder, self.lists)


class RadiologicalCaptions(_Rule):
    """Only texts that are captions of radiological images.

    not_of: words and phrases that say what else a picture shows; a text with one is taken out,
    unless: where it also has one of these, which name a radiological examination.
    """

    rule: Literal["radiological_captions"]
    not_of: Words
    unless: Words

    def apply(self, study: Study, source: Source) -> Study | Reject:  # noqa: ARG002
        """Reject a caption of something else."""
        said = study.findings or ""
        other = _any_of(self.not_of).search(said)
        if other is None or _any_of(self.unless).search(said):
            return study
        detail = f"the caption speaks of {other[0].lower()!r} and of no radiological examination"
        return _reject(study, "not_radiological", detail)


Rule = Annotated[
    HasSections | CutImpression | LeastWords | FrontalViews | ChestVolumes | RadiologicalCaptions,
    Field(discriminator="rule"),
]


@dataclass
class Selection:
    """The rules of a data set on its own files, and what they took out so far."""

    rules: Sequence[Rule] = ()
    source: Source = field(default_factory=lambda: Source(Path()))

    def __bool__(self) -> bool:
        """Whether there are rules."""
        return bool(self.rules)

    def digest(self) -> str:
        """Decided by the rules and by the files that they read."""
        said = [rule.model_dump(mode="json") for rule in self.rules]
        digest = hashlib.sha256(json.dumps([said, self.source.require]).encode())
        for rule in self.rules:
            for path in rule.files(self.source):
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def apply(self, results: Collection[Study | Reject]) -> Selected:
        """Apply the rules to what a reader gives."""
        selected = Selected()
        images = sum(len(result.images) for result in results if isinstance(result, Study))
        selected.count(FOUND, len(results), images)
        selected.count(NOT_READ, sum(not isinstance(result, Study) for result in results), 0)
        for rule in self.rules:
            selected.count(rule.rule, 0, 0)
        selected.results = [
            self._selected(result, selected) if isinstance(result, Study) else result
            for result in results
        ]
        studies = [result for result in selected.results if isinstance(result, Study)]
        selected.count(KEPT, len(studies), sum(len(study.images) for study in studies))
        return selected

    def _selected(self, study: Study, selected: Selected) -> Study | Reject:
        for rule in self.rules:
            before, result = len(study.images), rule.apply(study, self.source)
            if not isinstance(result, Study):
                selected.count(rule.rule, 1, before)
                return result
            selected.count(rule.rule, 0, before - len(result.images))
            study = result
        return study


@dataclass
class Selected:
    """What is left of a reader's studies, each in its place, and the funnel."""

    results: list[Study | Reject] = field(default_factory=list)
    steps: list[FunnelStep] = field(default_factory=list)

    def count(self, step: str, studies: int, pairs: int) -> None:
        """Add to a step of the funnel."""
        self.steps.append(FunnelStep(step, studies, pairs))

    @cached_property
    def funnel(self) -> tuple[FunnelStep, ...]:
        """Each step once."""
        return added(self.steps)


def _reject(study: Study, reason: str, detail: str, image_id: str | None = None) -> Reject:
    """The reject of the study, or of one of its images."""
    from storage.rejects import Reject

    return Reject(study.study_id, image_id or "report", reason, detail, image_id=image_id)


def _with_images(
    study: Study, faults: dict[str, tuple[str, str] | None], none_left: tuple[str, str]
) -> Study | Reject:
    """The study without the images that have a fault, each left out with its reason and detail."""
    kept = tuple(image for image in study.images if faults[image.image_id] is None)
    if study.images and not kept:
        return _reject(study, *none_left)
    left_out = tuple(
        _reject(study, *fault, image_id=image.image_id)
        for image in study.images
        if (fault := faults[image.image_id])
    )
    return replace(study, images=kept, left_out=(*study.left_out, *left_out))


def _not_frontal(image: StudyImage) -> tuple[str, str] | None:
    if image.view is None:
        return "view_unknown", "the data set does not say how the image was taken"
    if projection(image.view) != "frontal":
        return "view_not_frontal", f"the view is {image.view}"
    return None


def _was_cut(study: Study) -> bool:
    return any(reject.reason == "notification_cut" for reject in study.left_out)


@cache
def _lists(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return find_files(folder, *names)


@cache
def _listed(files: tuple[Path, ...]) -> frozenset[str]:
    """The volumes that lists name, without folders and suffixes."""
    return frozenset(
        line.strip().rpartition("/")[2].removesuffix(".gz").removesuffix(".nii")
        for file in files
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    )


@cache
def _any_of(words: Words) -> re.Pattern[str]:
    """Any of some words, whole and in any case of letters."""
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
