"""Finds the sections of a report by their titles, and tells which speak of the image at hand.

One reader for every place that meets a whole report: `tag`, the readers of data sets, cleaning.
The titles are data, in `sections.yaml`. The form of the titles follows the reports of MIMIC-CXR
(FINAL REPORT, EXAMINATION:, INDICATION:, …, a last paragraph without a title) and reports typed
by hand: any case, a blank before the colon, dots or a line under the title, no colon at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

UNTITLED = "untitled"
PRELIMINARY = "wet read"


@dataclass(frozen=True, slots=True)
class Section:
    """A section: its title is `text[start:body]`, what it says is `text[body:end]`.

    kind: "findings", "impression", "history", …, as in `sections.yaml`; "untitled" without a title.
    states: whether it speaks of the image at hand; history, technique and messages do not.
    """

    kind: str
    states: bool
    start: int
    body: int
    end: int


@dataclass(frozen=True, slots=True)
class _Title:
    kind: str
    states: bool
    start: int
    end: int


@dataclass(frozen=True)
class _Titles:
    kinds: dict[str, tuple[str, bool]]
    core: frozenset[str]
    projections: frozenset[str]
    qualifiers: frozenset[str]

    def kind_of(self, words: str) -> tuple[str, bool] | None:
        """Kind and whether it states findings, for the words of a title in lower case.

        "Key findings" is a kind of findings; of "Befund / Findings" the part that is known tells,
        and of "findings and plan" the first.
        """
        words = _NUMBER.sub("", words.replace(" & ", " and ").replace("&", " and "))
        if words in self.kinds:
            return self.kinds[words]
        first, _, rest = words.partition(" ")
        if rest and first in self.qualifiers:
            return self.kind_of(rest)
        parts = _JOINTS.split(words)
        known = [self.kinds[part] for part in parts if part in self.kinds]
        is_bilingual = "/" in words
        return known[0] if known and (is_bilingual or parts[0] in self.kinds) else None


# What may be a title; whether it is one, the list of titles tells. Every repeat is bounded.
_CANDIDATE = re.compile(
    r"""
    ^ [^\S\n]*+ (?P<opening> [A-Z]{4,20}+ ) (?= [^\S\n]{1,8} [A-Z][a-z] )
  | ^ [^\S\n]*+ (?P<spaced> (?: [A-Z][ ] ){5,20} [A-Z] ) [ ]? (?: : | (?= \n | \Z ) )
  | [\[<] (?P<bracketed> [A-Za-z][A-Za-z /&-]{2,40} ) [\]>] :?
  | (?: ^ [^\S\n]*+ [*_\#>•-]{0,3} [^\S\n]{0,3}
        (?: (?: \(?\d{1,2} | [A-H] | [IVX]{1,4} ) [.)] [ ]{1,3} )?
      | (?<=[.!?;)_]) [^\S\n]++ | (?<=[.!?]) )
    (?P<words> [A-Za-z][\w/&,'-]*+ (?:[^\S\n]{1,3} [\w&/\#][\w/&,'-]*+ ){0,6} ) [*_]{0,2}
    (?P<note> [^\S\n]{0,3} \( [^()\n]{0,60} \) )?
    (?P<mark> [^\S\n]{0,40} (?: : (?!\d) [*_]{0,2} | \.{3,}+ :? | [-–—=]{1,3}+ (?=\s) )
              | [^\S\n]*+ (?= \n | \Z ) )
  | (?<=\s) (?P<inside> [A-Z][A-Z/&-]*+ (?: [ ] [A-Z/&-]++ ){0,6} ) [ ]? : (?!\d)
  | ^ [^\S\n]*+ (?P<rule> _{5,}+ | -{3,}+ | ={3,}+ | \*{3,}+ ) [^\S\n]*+ $
    """,
    re.VERBOSE | re.MULTILINE,
)
_MARKS = (":", "\n", "...", " - ", " -- ", " = ", "]", ">")
"""No title is without one of these, but for one in capitals at the head of the text."""

_NUMBER = re.compile(r" #?\d{1,2}$")
_JOINTS = re.compile(r" ?/ ?| and |, ")
_UNDERLINE = re.compile(
    r"[^\S\n]*+\n[^\S\n]*+(?:-{3,}+|={3,}+|_{3,}+|~{3,}+|\*{3,}+)[^\S\n]*+$", re.M
)
_ABOUT_THE_PATIENT = re.compile(
    r"(?:(?:(?:the|this)\s)?(?:patient|he|she|his|her|past|known|history|family|mother|father"
    r"|allerg\w+|medications?|smok\w+|complain\w*|present(?:s|ed|ing)|admitted|underwent"
    r"|status\spost|s/p|h/o|pmh\w*|please|rule\sout|r/o|evaluate|assess|reason"
    r"|compar(?:ed|ison)|(?:no\s)?(?:comparisons?|priors?|previous))\b"
    r"|\?|\d{1,3}[ -]?(?:y|f\b|m\b))",
    re.IGNORECASE,
)
"""How a further paragraph of a history begins; one that is the last of a report is no history."""

_BLANK_LINE = re.compile(r"(?<=\S)[^\S\n]*+\n[^\S\n]*+\n")


def read_sections(text: str) -> list[Section]:
    """The sections in order; together they are the whole text. An empty text has none."""
    if not text:
        return []
    may_have = any(mark in text for mark in _MARKS) or text[:4].isupper()
    if not may_have:
        return [Section(UNTITLED, True, 0, 0, len(text))]
    titles = list(_found(text))
    if not titles or titles[0].start > 0:
        titles.insert(0, _Title(UNTITLED, True, 0, 0))
    has_findings = any(title.kind == "findings" for title in titles)
    sections: list[Section] = []
    ends = [title.start for title in titles[1:]] + [len(text)]
    for title, end in zip(titles, ends, strict=True):
        paragraph = None
        if not (title.states or has_findings):
            paragraph = _end_of_context(text, title.end, end)
        if paragraph and text[paragraph.end() : end].strip():
            middle = paragraph.end()
            sections.append(Section(title.kind, False, title.start, title.end, middle))
            sections.append(Section(UNTITLED, True, middle, middle, end))
        else:
            sections.append(Section(title.kind, title.states, title.start, title.end, end))
    return sections


def _end_of_context(text: str, start: int, end: int) -> re.Match[str] | None:
    """The blank line after which a section that states nothing has ended.

    A paragraph that speaks of the patient, a date or a request goes on with it.
    """
    blank = _BLANK_LINE.search(text, start, end)
    while blank:
        following = _BLANK_LINE.search(text, blank.end(), end)
        paragraph = text[blank.end() : following.start() if following else end].strip()
        if not (_ABOUT_THE_PATIENT.match(paragraph) and following):
            return blank
        blank = following
    return None


def stating_sections(text: str) -> list[Section]:
    """The sections that speak of the image at hand.

    A preliminary reading counts only where no final one follows it.
    """
    stating = [
        s for s in read_sections(text) if s.states and any(map(str.isalnum, text[s.body : s.end]))
    ]
    last = len(stating) - 1
    return [s for i, s in enumerate(stating) if s.kind != PRELIMINARY or i == last]


def findings_and_impression(text: str) -> tuple[str | None, str | None]:
    """What a whole report says under findings and under impression; None where it says nothing.

    Addenda belong to the findings. A report without a title of findings has what stands under no
    title, and a preliminary reading, for its findings.
    """
    by_kind: dict[str, list[str]] = {}
    for section in stating_sections(text):
        by_kind.setdefault(section.kind, []).append(text[section.body : section.end].strip())
    impression = by_kind.pop("impression", [])
    if "findings" in by_kind:
        by_kind = {kind: by_kind.get(kind, []) for kind in ("findings", "addendum")}
    findings = [said for kind in by_kind.values() for said in kind]
    return "\n".join(findings) or None, "\n".join(impression) or None


def _found(text: str) -> Iterator[_Title]:
    titles = _titles()
    after_title = -1
    for match in _CANDIDATE.finditer(text):
        if match["rule"]:
            if not text[after_title : match.start()].strip() and after_title >= 0:
                continue  # the line under a title
            yield _Title(UNTITLED, True, match.start(), match.end())
            continue
        found = _title(text, match, titles)
        if found is not None:
            kind, states, start = found
            underline = _UNDERLINE.match(text, match.end())
            after_title = underline.end() if underline else match.end()
            yield _Title(kind, states, start, after_title)


def _title(text: str, match: re.Match[str], titles: _Titles) -> tuple[str, bool, int] | None:
    """Kind, whether it states findings, and where the title begins; none if it is no title."""
    if match["opening"]:
        word = match["opening"].lower()
        return (*titles.kinds[word], match.start()) if word in titles.core else None
    if match["inside"]:
        return _title_inside(match["inside"], match.start(), titles)
    if match["spaced"] or match["bracketed"]:
        words = (match["spaced"] or "").replace(" ", "") or match["bracketed"]
        known = titles.kind_of(" ".join(words.lower().split()))
        return (*known, match.start()) if known else None
    words = " ".join(match["words"].lower().split()).rstrip(",-'&/_")
    mark = match["mark"].strip()
    ends_line, by_dash = not mark, mark.startswith(("-", "–", "—", "="))
    known = titles.kind_of(words) if mark.startswith((":", ".")) else titles.kinds.get(words)
    if known is None:
        if not (match["words"].isupper() and mark.startswith(":")):
            return None
        described = f"{words} {(match['note'] or '').lower()}"
        if not titles.projections.isdisjoint(re.findall(r"[\w-]+", described)):
            return "findings", True, match.start()
        return _title_inside(match["words"], match.start("words"), titles)
    at_line_start = text[max(match.start() - 1, 0) : match.start()] in ("", "\n")
    if (ends_line or by_dash) and not (at_line_start and (not by_dash or words in titles.core)):
        return None
    return (*known, match.start())


def _title_inside(words: str, start: int, titles: _Titles) -> tuple[str, bool, int] | None:
    """A core title in capitals inside a line: the longest one that ends where the words do."""
    for space in re.finditer(r"^|(?<=\s)(?=\S)", words):
        title = " ".join(words[space.end() :].lower().split())
        if title in titles.core:
            return (*titles.kinds[title], start + space.end())
    return None


@cache
def _titles() -> _Titles:
    raw = yaml.safe_load(Path(__file__).with_name("sections.yaml").read_text(encoding="utf-8"))
    kinds = {
        title: (kind, group == "states")
        for group in ("states", "context")
        for kind, titles in raw[group].items()
        for title in titles
    }
    kinds |= dict.fromkeys(raw["banners"], (UNTITLED, True))
    words = (frozenset(raw[name]) for name in ("core", "projections", "qualifiers"))
    return _Titles(kinds, *words)
