"""A grounded report as the gallery tells it: its text in pieces, its findings, its pictures.

A finding is what a reader points at: a target at a site, with its boxes or its mask or the reason
why there is neither. Several phrases may name one finding; its number ties them to the pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dashboard.views import View
from storage.reasons import explain

_HEADING = re.compile(r"^(Findings|Impression):", re.MULTILINE)

Row = Mapping[str, Any]
MaskKey = tuple[str, str | None, tuple[str, ...]]


@dataclass
class Finding:
    """One row of the list beside a report.

    number: 1, 2, … in order of first mention; mask_key: target, laterality and zones of its row
    in `masks`; view: position of the picture to show it on, None if none does.
    """

    number: int
    target: str
    category: str
    reason: str | None
    boxes: Sequence[Row]
    mask_key: MaskKey | None
    phrases: list[str] = field(default_factory=list)
    first_tag: int = 0
    volume_mm3: float | None = None
    view: int | None = None

    @property
    def name(self) -> str:
        """Target and site, as far as the record tells."""
        _, laterality, zones = self.mask_key or ("", None, ())
        site = [word for word in (laterality, *zones) if word and word not in self.target.split()]
        return f"{self.target} ({', '.join(site)})" if site else self.target

    @property
    def measure(self) -> str:
        """What grounds it, in a few words; empty if nothing does."""
        if self.volume_mm3 is not None:
            return f"mask, {self.volume_mm3 / 1000:,.1f} ml"
        if len(self.boxes) > 1:
            return f"{len(self.boxes)} boxes"
        return "1 box" if self.boxes else ""

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
    report: Row
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


def read_article(anchor: str, report: Row, removed: Sequence[str]) -> Article:
    """Lay out a row of `grounded_reports`, without pictures yet.

    Args:
        anchor: the article's id in the page.
        report: the row.
        removed: what cleaning dropped from the report.
    """
    findings: dict[Any, Finding] = {}
    by_tag = []
    for i, tag in enumerate(report["tags"]):
        key = _finding_key(tag)
        if key not in findings:
            findings[key] = _finding(len(findings) + 1, i, tag)
        finding = findings[key]
        if tag["phrase"] not in finding.phrases:
            finding.phrases.append(tag["phrase"])
        by_tag.append(finding)
    pieces = _pieces(report["text"], report["tags"], by_tag)
    return Article(anchor, report, removed, list(findings.values()), pieces)


def mask_key(row: Row) -> MaskKey:
    """What identifies a mask on its image, from a row of `masks` or a tag's reference to one."""
    return row["target"], row["laterality"], tuple(row["zones"] or ())


def _finding(number: int, first_tag: int, tag: Row) -> Finding:
    return Finding(
        number=number,
        target=tag["target"],
        category=tag["category"],
        reason=tag["reason"],
        boxes=tag["boxes"] or [],
        mask_key=mask_key(tag["mask"]) if tag["mask"] else None,
        first_tag=first_tag,
    )


def _finding_key(tag: Row) -> tuple[Any, ...]:
    boxes = tuple(tuple(box.values()) for box in tag["boxes"] or ())
    mask = mask_key(tag["mask"]) if tag["mask"] else None
    return tag["target"], tag["category"], tag["reason"], boxes, mask


def _pieces(text: str, tags: Sequence[Row], findings: Sequence[Finding]) -> list[Piece]:
    """Cut a text into pieces that give it back when joined; tags are ordered and apart."""
    marks = [
        Piece(text[tag["start"] : tag["end"]], finding, i)
        for i, (tag, finding) in enumerate(zip(tags, findings, strict=True))
    ]
    starts = [tag["start"] for tag in tags]
    pieces: list[Piece] = []
    done = 0
    for start, mark in zip(starts, marks, strict=True):
        pieces += _plain_pieces(text, done, start)
        pieces.append(mark)
        done = start + len(mark.text)
    return pieces + _plain_pieces(text, done, len(text))


def _plain_pieces(text: str, start: int, end: int) -> list[Piece]:
    pieces: list[Piece] = []
    for heading in _HEADING.finditer(text, start, end):
        pieces += [Piece(text[start : heading.start()]), Piece(heading[0], is_heading=True)]
        start = heading.end()
    return [piece for piece in (*pieces, Piece(text[start:end])) if piece.text]
