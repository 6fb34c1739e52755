"""Characters that stand for others, read as what they stand for; offsets lead back to the source.

Text copied from a PDF, a word processor or a web page has ligatures, soft hyphens, no-break spaces,
tags and words hyphenated at a line's end. Rules and vocabulary are written without them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain

from taxonomy.targets import Taxonomy
from taxonomy.words import form, tokenize

_CHARACTERS = {
    **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", ""),  # soft hyphen, zero width
    **dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007", " "),
    **dict.fromkeys("\u2008\u2009\u200a\u202f\u205f\u3000\t\x0b", " "),
    **dict.fromkeys("\x0c\x85\u2028\u2029", "\n"),
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc", "'"),
    **dict.fromkeys("\u201c\u201d\u201e", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2212", "-"),
    "\ufb00": "ff",
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb03": "ffi",
    "\ufb04": "ffl",
    "\ufb05": "st",
    "\ufb06": "st",
    "\x00": " ",
    "\uff1a": ":",
    "\uff1b": ";",
    "\uff0c": ",",
    "\u2026": "...",
}
_SIGNS = {"&nbsp;": " ", "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'"}
_WRAP = re.compile(r"(?<=[a-z])-[ \t]*+\r?\n[ \t]*+(?=[a-z])")
_REPLACED = re.compile(
    "(?P<line>\r\n?|(?i:</?(?:br|p|div|li|ul|ol|tr|table)(?: ?/)?>))"
    "|(?P<tag>(?i:</?(?:b|i|u|strong|em|span|font|td)>))"
    f"|(?P<sign>{'|'.join(_SIGNS)})|"
    f"(?P<wrap>{_WRAP.pattern})"
    f"|(?P<soft>\u00ad[ \t]*+\r?\n[ \t]*+)|[{''.join(map(re.escape, _CHARACTERS))}]"
)
_MAY_BE_REPLACED = re.compile(r"[\r\t<&]|-[ \t]*+\n")
"""Signs of something to replace in a text of ASCII letters."""

_WORD_BEFORE = re.compile(r"[a-z]+\Z", re.IGNORECASE)
_WORD_AFTER = re.compile(r"[a-z]++", re.IGNORECASE)
_LONGEST_WORD = 40
"""Characters looked at on either side of a hyphenated line wrap; longer words are no words."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A text in which some stretches of a source text were replaced.

    `marks` holds, for each point where the two texts begin to run in step again, the offset in
    `text` and in the source, in order; both begin with 0.
    """

    text: str
    marks: tuple[tuple[int, int], ...] = ((0, 0),)

    def source(self, offset: int) -> int:
        """The offset in the source of an offset in `text`, code points both."""
        i = bisect_right(self.marks, (offset, 1 << 62)) - 1
        here, there = self.marks[i]
        found = there + offset - here
        return min(found, self.marks[i + 1][1]) if i + 1 < len(self.marks) else found

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the source, half-open, that `text[start:end]` was made of."""
        if len(self.marks) == 1 or start == end:
            return self.source(start), self.source(end)
        i = bisect_right(self.marks, (end - 1, 1 << 62)) - 1
        here, there = self.marks[i]
        last = there + end - here
        if i + 1 < len(self.marks):
            next_here, next_there = self.marks[i + 1]
            last = next_there if end == next_here else min(last, next_there)
        return self.source(start), last

    def target(self, offset: int) -> int:
        """The offset in `text` of an offset in the source."""
        if len(self.marks) == 1:
            return offset
        i = bisect_right(self.marks, offset, key=lambda mark: mark[1]) - 1
        here, there = self.marks[i]
        end = self.marks[i + 1][0] if i + 1 < len(self.marks) else len(self.text)
        return min(here + offset - there, end)


def rewrite(
    text: str, pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str]
) -> Rewritten:
    """Replace what a pattern finds, keeping track of offsets; linear in the text's length."""
    pieces: list[str] = []
    marks = [(0, 0)]
    copied = length = 0
    for match in pattern.finditer(text):
        new = replacement(match)
        if new == match[0]:
            continue
        pieces += text[copied : match.start()], new
        length += match.start() - copied + len(new)
        copied = match.end()
        if not new:  # what was left out after a word is no part of it
            marks.append((length, match.start()))
        if len(new) != len(match[0]):
            marks.append((length, copied))
    if not copied:
        return Rewritten(text)
    return Rewritten("".join((*pieces, text[copied:])), tuple(marks))


@lru_cache(maxsize=1 << 10)
def normalize(text: str, known: frozenset[str]) -> Rewritten:
    r"""A text without ligatures, soft hyphens, special spaces, markup and hyphenated line wraps.

    A wrapped word loses its hyphen where the joined word is known ("atelec-\ntasis") and keeps it
    elsewhere ("left-\nsided").

    Args:
        text: what a report says.
        known: words in their normal form, as `words_of` a taxonomy.
    """
    if text.isascii() and not _MAY_BE_REPLACED.search(text):
        return Rewritten(text)
    return rewrite(text, _REPLACED, partial(_replacement, known))


def readings(text: str) -> tuple[str, ...]:
    """A text as it is read where no word is known, and where every hyphenated word is."""
    apart = normalize(text, frozenset()).text
    joined = _WRAP.sub("", text)
    return (apart,) if joined == text else (apart, normalize(joined, frozenset()).text)


def _replacement(known: frozenset[str], match: re.Match[str]) -> str:
    if match["line"]:
        return "\n"
    if match["soft"] or match["tag"]:
        return ""
    if match["sign"]:
        return _SIGNS[match[0]]
    if not match["wrap"]:
        return _CHARACTERS[match[0]]
    text, start, end = match.string, match.start(), match.end()
    before = _WORD_BEFORE.search(text, max(start - _LONGEST_WORD, 0), start)
    after = _WORD_AFTER.match(text, end, end + _LONGEST_WORD)
    joined = f"{before[0] if before else ''}{after[0] if after else ''}"
    return "" if form(joined).word in known else "-"


@lru_cache(maxsize=16)
def words_of(taxonomy: Taxonomy) -> frozenset[str]:
    """The words of all names and synonyms of a taxonomy, in their normal form."""
    phrases = chain.from_iterable(target.phrases for target in taxonomy.targets.values())
    return frozenset(f.word for phrase in phrases for f in tokenize(phrase).forms)
