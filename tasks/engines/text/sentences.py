"""Splits report text into sentences, the unit that every text engine reasons over.

Report prose is telegraphic: numbered lists without full stops, lines without punctuation,
full stops without a following space, question marks before the finding they doubt. The rules
below read those; a general splitter trained on edited prose does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

_NEVER_FINAL = frozenset(
    "dr drs mr mrs ms prof st mt vs e.g i.e eg ie approx ca cf fig figs incl resp viz".split()
)
"""Abbreviations whose full stop does not end a sentence, whatever follows."""

_SELDOM_FINAL = frozenset(
    "etc a.m p.m am pm al inc min max avg bilat wk wks mo mos yr yrs hrs".split()
)
"""Abbreviations whose full stop ends a sentence only before a capital letter."""

_DANGLING = frozenset(
    "a an and are as at be by for from has have in into is no nor not of on or than that the "
    "their this to versus vs was were which with within without".split()
)
"""Words that never end a sentence: a line that ends with one goes on in the next line."""

_CANDIDATE = re.compile(
    r"""
    (?P<stop> (?: \.+ | (?<=[^\s(])[.!?]+ ) ["')\]]* (?: (?=\s|$) | (?=[A-Z]|\d{1,2}[.)]\s) ) )
  | (?P<line> (?<![^\S\n]) [^\S\n]* \n \s* )
  | (?P<item> (?<=\s) \(?(?P<number>\d{1,2})[.)] (?=\s+[A-Z]) )
    """,
    re.VERBOSE,
)
_LAST_WORD = re.compile(r"[\w.]*\w(?=\W*$)")
_MARKER_ALONE = re.compile(r"\s*\(?\d{1,2}\s*")
_ITEM = re.compile(r"\s*\(?(\d{1,2})[.)]\s")
_LINE_OPENER = re.compile(r"[-*•·–]\s|\(?\d{1,2}[.)]\s|[A-Z][a-z]|[A-Z]\b|X{2,}")
_CAPITALS = re.compile(r"[A-Z]{2,}")
_SHORT_LINE = 60
"""Characters; text is wrapped later than that, so a shorter line ends where it was meant to."""

_LABEL = re.compile(r"[A-Z][\w /-]*:$")


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences: half-open, in order, trimmed, covering all text but spaces.

    A list marker ("2.", "-") belongs to the sentence that it introduces.
    """
    return list(_spans(text))


@lru_cache(maxsize=1 << 14)  # the text steps ask for the same texts one after the other
def _spans(text: str) -> tuple[tuple[int, int], ...]:
    spans: list[tuple[int, int]] = []
    start = 0
    for end in (*_boundaries(text), len(text)):
        piece = text[start:end]
        first, last = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        if any(map(str.isalnum, piece)) or (first < last and not spans):
            spans.append((first, last))
        elif first < last:
            spans[-1] = (spans[-1][0], last)  # stray punctuation ends the sentence before it
        start = end
    return tuple(spans)


def _boundaries(text: str) -> Iterator[int]:
    start = 0
    for match in _CANDIDATE.finditer(text):
        if match["item"] and _continues_list(text, start, int(match["number"])):
            boundary = match.start()
        elif _ends_sentence(
            text[start : match.start()], text[match.end() : match.end() + 12], match
        ):
            boundary = match.end()
        else:
            continue
        yield boundary
        start = boundary


def _continues_list(text: str, start: int, number: int) -> bool:
    """A bare "2." opens an item only where item 1 is running: "1. No effusion 2. Clear"."""
    marker = _ITEM.match(text, start)
    return marker is not None and int(marker[1]) == number - 1


def _ends_sentence(before: str, after: str, match: re.Match[str]) -> bool:
    if match["line"]:
        return _line_ends_sentence(before, after, match["line"])
    if match["item"]:
        # "seen on image 2. Clear" ends there; "2. Clear" and "(2) Clear" do not.
        return match["item"].endswith(".") and not _MARKER_ALONE.fullmatch(before + match["number"])
    if _MARKER_ALONE.fullmatch(before):
        return False
    if match["stop"] != ".":
        return True
    last = _LAST_WORD.search(before, max(len(before) - 20, 0))
    word = last[0] if last and last.end() == len(before) else ""
    if after[:1].strip():
        # No space after it: "clear.No effusion", but not "J.Smith" or "v2.B".
        return (len(word) > 1 and word[-1].islower()) or word.endswith("XX")
    return _word_may_end(word, after.lstrip())


def _line_ends_sentence(before: str, after: str, gap: str) -> bool:
    if gap.count("\n") > 1 or not before.strip():
        return True
    if not (_LINE_OPENER.match(after) or _opens_without_a_capital(before, after)):
        return False
    if _LABEL.match(before.strip()):
        return False
    last = _LAST_WORD.search(before)
    return not (before.rstrip().endswith(",") or (last and last[0].lower() in _DANGLING))


def _opens_without_a_capital(before: str, after: str) -> bool:
    """Whether a line opens a sentence although no capital tells: all are capitals, or none are."""
    line = before.rsplit("\n", 1)[-1]
    tells_nothing = _CAPITALS.match(after) or before.lstrip()[0].islower()
    return len(line) < _SHORT_LINE and bool(tells_nothing)


def _word_may_end(word: str, following: str) -> bool:
    lowered = word.lower()
    if not following:
        return True
    if lowered in _NEVER_FINAL or (len(word) == 1 and word.isupper()):
        return False  # an abbreviation, an initial, or "R. lung"
    if lowered in _SELDOM_FINAL:
        return following[0].isupper()
    if lowered in {"no", "nos"} or word.isdigit():
        return not following[0].isdigit() or _ITEM.match(following) is not None
    return True
