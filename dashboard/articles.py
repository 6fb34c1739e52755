"""A grounded report as the gallery shows it: its text in pieces, its findings, its pictures.

A finding is what a reader points at: a target at a site, with its boxes or its mask or the reason
why there is neither. Several phrases may name one finding; its number ties them to the pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dashboard.views import View
from storage.reasons import explain
from storage.records import AnyBox, Box, GroundedReport, Grounding, Mask, SiteKey, Tag

_HEADING = re.compile(r"^(Findings|Impression):", re.MULTILINE)


@dataclass
class Finding:
    """One row of the list beside a report.

    number: 1, 2, … in order of first mention; view: position of the picture to show it on, None
    if none does.
    """

    number: int
    target: str
    category: str
    site: SiteKey
    grounding: Grounding
    phrases: list[str] = field(default_factory=list)
    first_tag: int = 0
    view: int | None = None

    @property
    def reason(self) -> str | None:
        """Why nothing grounds it, as a code; None if something does."""
        return self.grounding.reason

    @property
    def boxes(self) -> Sequence[AnyBox]:
        """Its boxes, if it has any."""
        return self.grounding.boxes or ()

    @property
    def boxes_px(self) -> Sequence[Box]:
        """Its boxes on a radiograph, in pixels of the stored image."""
        return [box for box in self.boxes if isinstance(box, Box)]

    @property
    def mask(self) -> Mask | None:
        """Its mask, if it has one that is not empty."""
        mask = self.grounding.mask
        return mask if mask is not None and mask.voxel_count else None

    @property
    def name(self) -> str:
        """Target, side and zones."""
        site = (self.site.laterality, *self.site.zones)
        words = [word for word in site if word and word not in self.target.split()]
        return f"{self.target} ({', '.join(words)})" if words else self.target

    @property
    def measure(self) -> str:
        """What grounds it, in a few words; empty if nothing does."""
        found = []
        if self.boxes:
            found.append(f"{len(self.boxes)} boxes" if len(self.boxes) > 1 else "1 box")
        if self.mask is not None:
            volume_mm3 = self.mask.volume_mm3
            size = f"{self.mask.voxel_count:,} pixels"
            found.append(f"mask, {size if volume_mm3 is None else f'{volume_mm3 / 1000:,.1f} ml'}")
        return "; ".join(found)

    @property
    def explanation(self) -> str:
        """Why nothing grounds it, in a sentence; empty if something does."""
        return explain(self.reason) if self.reason else ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a report's text: plain, a heading, or a tag of a finding."""

    text: str
    finding: Finding | None = None
    tag: int | None = None
    is_heading: bool = False


@dataclass
class Article:
    """A report on one image; `placeholder` says why there is no picture of it."""

    anchor: str
    report: GroundedReport
    removed: Sequence[str]
    findings: list[Finding]
    pieces: list[Piece]
    views: Sequence[View] = ()
    first_view: int = 0
    placeholder: str | None = None

    @property
    def is_grounded(self) -> bool:
        """Whether any finding has boxes or a mask, shown here or not."""
        return any(finding.reason is None for finding in self.findings)

    @property
    def reason(self) -> str | None:
        """The reason that all findings share, if no finding is grounded and they share one."""
        reasons = {finding.reason for finding in self.findings}
        return reasons.pop() if len(reasons) == 1 else None


def read_article(anchor: str, report: GroundedReport, removed: Sequence[str]) -> Article:
    """Lay out a grounded report, without pictures yet.

    Args:
        anchor: the article's id in the page.
        report: the report.
        removed: what cleaning dropped from it.
    """
    findings: dict[Any, Finding] = {}
    by_tag = []
    for i, tag in enumerate(report.tags):
        # Two sites may get the same boxes, as a zone and its lung do: drawn once, they are one.
        site = tag.site if tag.grounding.kind == "none" else None
        key = tag.target, tag.category, tag.grounding, site
        if key not in findings:
            findings[key] = _finding(len(findings) + 1, i, tag)
        finding = findings[key]
        if tag.phrase not in finding.phrases:
            finding.phrases.append(tag.phrase)
        by_tag.append(finding)
    pieces = _pieces(report.text, report.tags, by_tag)
    return Article(anchor, report, removed, list(findings.values()), pieces)


def _finding(number: int, first_tag: int, tag: Tag) -> Finding:
    """The finding that a tag begins; a phrase unknown to the taxonomy stands for itself."""
    return Finding(
        number,
        tag.target or tag.phrase,
        tag.category or "abnormality",
        tag.site,
        tag.grounding,
        first_tag=first_tag,
    )


def _pieces(text: str, tags: Sequence[Tag], findings: Sequence[Finding]) -> list[Piece]:
    """Cut a text into pieces that give it back when joined.

    Tags are in order; of those that share their words, as the members of a range do, the first
    one's finding stands for the piece.
    """
    pieces: list[Piece] = []
    done = 0
    for i, (tag, finding) in enumerate(zip(tags, findings, strict=True)):
        if tag.start < done:
            continue
        pieces += _plain_pieces(text, done, tag.start)
        pieces.append(Piece(text[tag.start : tag.end], finding, i))
        done = tag.end
    return pieces + _plain_pieces(text, done, len(text))


def _plain_pieces(text: str, start: int, end: int) -> list[Piece]:
    pieces: list[Piece] = []
    for heading in _HEADING.finditer(text, start, end):
        pieces += [Piece(text[start : heading.start()]), Piece(heading[0], is_heading=True)]
        start = heading.end()
    return [piece for piece in (*pieces, Piece(text[start:end])) if piece.text]
