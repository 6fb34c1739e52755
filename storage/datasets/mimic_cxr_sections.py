"""The sections of a report of MIMIC-CXR, split as its owners do it.

The rules are those of MIT-LCP/mimic-cxr (`txt/section_parser.py`, `txt/create_section_files.py`),
from which the official labels and the paper's texts come; the names that they know stand in
`mimic_cxr_sections.yaml`. They know one form of title, in capitals after a newline and a blank.
`storage.sections` reads titles in any form and asks another question, which sections speak of the
image. It is asked here for what stands before the first title, where an addendum has its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import yaml

from storage.sections import read_sections

PREAMBLE = "preamble"
WHOLE = "full report"
LAST_PARAGRAPH = "last_paragraph"

_TITLE = re.compile(r"\n ([A-Z ()/,-]+):\s")
_PARAGRAPHS = "\n \n"

_READ_FOR_FINDINGS = ("findings", "impression", "addendum", "wet read")
"""Sections that speak of the image: one of these that is not used is named."""

Origin = Literal["sections", "last paragraph", "chosen by hand"]


class NamedSection(NamedTuple):
    """A section: its name as the parser normalizes it, and what stands below the title."""

    name: str
    text: str


@dataclass(frozen=True)
class ReportTexts:
    """What a study has to say.

    findings, impression: None where there is none; without either, the last paragraph, or what
        the owners chose by hand, stands as findings.
    origin: where the text comes from.
    unused: names of sections that speak of the image and are not used, in order: the official
        rules take the last of several sections of one name.
    """

    findings: str | None
    impression: str | None
    origin: Origin
    unused: tuple[str, ...] = ()


def report_texts(study: str, text: str) -> ReportTexts | None:
    """The findings and the impression of a report; None if the official rules find no text in it.

    Args:
        study: `s` and the study's number, as the file is called.
        text: the whole file; lines may end as on any system.
    """
    text = text.replace("\r\n", "\n")
    rules = _rules()
    if study in rules.range_of_study:
        start, end = rules.range_of_study[study]
        return _as_findings(text[start:end], "chosen by hand")
    sections = split_sections(text)
    if study in rules.section_of_study:
        return _as_findings(_last(sections, rules.section_of_study[study]), "chosen by hand")
    findings, impression = _last(sections, "findings"), _last(sections, "impression")
    if not (findings or impression):
        return _as_findings(_last(sections, LAST_PARAGRAPH), "last paragraph")
    return ReportTexts(findings or None, impression or None, "sections", tuple(_unused(sections)))


def split_sections(text: str) -> list[NamedSection]:
    """The sections of a report in order, each up to the next title; spaces are kept.

    A title is capitals, blanks and `( ) / , -` after a newline and one blank, up to a colon; a
    second one in the same line is none. What stands before the first title is the preamble, a
    report without one is the section `full report`. Empty findings and impressions are left out.
    Where neither is left, the last section ends at its first blank line, and what follows is the
    section `last_paragraph`.
    """
    sections = [
        section
        for section in _titled(text)
        if section.name not in ("findings", "impression") or section.text.strip()
    ]
    if sections and not {"findings", "impression"} & {section.name for section in sections}:
        name, whole = sections[-1]
        before, blank_line, after = whole.partition(_PARAGRAPHS)
        if blank_line:
            sections[-1:] = [NamedSection(name, before), NamedSection(LAST_PARAGRAPH, after)]
    return sections


def _titled(text: str) -> list[NamedSection]:
    title = _TITLE.search(text)
    if title is None:
        return [NamedSection(WHOLE, text)]
    found = [NamedSection(PREAMBLE, text[: title.start(1)])]
    while title is not None:
        start = title.end()
        line_end = text.find("\n", start)
        following = _TITLE.search(text, start if line_end < 0 else line_end)
        end = following.start() if following else len(text)
        found.append(NamedSection(normalized(title[1]), text[start:end]))
        title = following
    return found


@cache
def normalized(title: str) -> str:
    """The name that a title counts as."""
    rules, name = _rules(), title.lower().strip()
    if name in rules.names:
        return rules.names[name]
    part = next((part for part in rules.contains if part in name), None)
    if part is not None:
        return part
    return "findings" if any(part in name for part in rules.findings_if_contains) else name


def _last(sections: list[NamedSection], name: str) -> str:
    """What the last section of a name says; empty if there is none."""
    return next((s.text.strip() for s in reversed(sections) if s.name == name), "")


def _as_findings(text: str, origin: Origin) -> ReportTexts | None:
    text = text.strip()
    return ReportTexts(text, None, origin) if text else None


def _unused(sections: list[NamedSection]) -> list[str]:
    """Names of the sections that speak of the image and are not the last of their name."""
    last = {section.name: place for place, section in enumerate(sections)}
    named = [
        name
        for place, (name, text) in enumerate(sections)
        if name in _READ_FOR_FINDINGS
        and text.strip()
        and not (name in ("findings", "impression") and last[name] == place)
    ]
    preamble = sections[0].text if sections[0].name == PREAMBLE else ""
    if "DDEND" in preamble.upper():
        named = [s.kind for s in read_sections(preamble) if s.kind == "addendum"] + named
    return named


@dataclass(frozen=True)
class _Rules:
    """`mimic_cxr_sections.yaml`."""

    names: Mapping[str, str]
    contains: tuple[str, ...]
    findings_if_contains: tuple[str, ...]
    section_of_study: Mapping[str, str]
    range_of_study: Mapping[str, tuple[int, int]]


@cache
def _rules() -> _Rules:
    return _Rules(**yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")))
