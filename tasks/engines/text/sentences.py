"""Splits report text into sentences, the unit that every text engine reasons over.

Report prose is telegraphic: numbered lists without full stops, lines without punctuation,
full stops without a following space, question marks before the finding they doubt. The rules
below read those; a general splitter trained on edited prose does not.

A line of underscores, dashes, equals signs or asterisks separates sentences and is text of none.
A dash between spaces does not end a sentence: it ends a clause, which is for the reader of clauses
to see. Every pattern looks at a bounded stretch or cannot backtrack, so that the time grows with
the length of the text and no faster.
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
    "a an and any are as at be between but by cannot each evidence few for from has have in into "
    "is may might multiple near new no nor not of on or other possible possibly probable probably "
    "several some than that the their these this those through to versus vs was were which with "
    "within without".split()
)
"""Words that never end a sentence: a line that ends with one goes on in the next line."""

_ATTRIBUTES = frozenset(
    "apical axillary basal basilar bibasilar bony cardiac cardiomediastinal definite endotracheal "
    "evident focal gross hilar ill-defined intercostal interstitial lobar malignant mediastinal "
    "nasogastric nodular obvious osseous overt parenchymal patchy pericardial perihilar pleural "
    "pulmonary reticular retrocardiac rounded streaky subsegmental substantial suspicious "
    "thoracic vague vascular venous vertebral".split()
)
"""Adjectives that stand before their noun: a line that ends with one goes on in the next line."""

_PREDICATES = frozenset(
    "abnormal acute bilateral central chronic confluent dense diffuse discrete displaced extensive "
    "faint large largest left linear loculated lower marked massive mild minimal moderate "
    "peripheral posterior prominent right scattered severe significant slight small soft subtle "
    "tiny trace upper".split()
)
"""Adjectives that may also end a statement: "effusion small", "effusion on the left"."""

_OPENERS = _DANGLING | _ATTRIBUTES | _PREDICATES
"""After one of these, an adjective of `_PREDICATES` stands before a noun: "no large"."""

_NOUN_USE = frozenset("an at are in is on the this than to was were".split())
"""After one of these, it does not: "on the left", "is large"."""

_ENDS = r"""
    (?P<stop> (?: (?<!\.) \.++ | (?<=[^\s(.!?]) [.!?]++ )
              ["')\]]{0,3} (?: (?=\s|$) | (?=[A-Z]|\d{1,2}[.)]\s) ) )
  | (?P<line> (?<![^\S\n]) [^\S\n]*+ \n \s*+ )
  | (?P<missing> (?<=[a-z]{3}) [ ]++ (?= (?:The|There)\s[a-z]) )
  | (?P<item> (?<=\s) \(?(?P<number>\d{1,2})[.)] (?=\s+[A-Z]) )
"""
_RULES = r"""
    (?P<rule> ^ [^\S\n]*+ (?: _{5,}+ | -{3,}+ | ={3,}+ | \*{3,}+ | ~{3,}+ | \#{3,}+ | –{3,}+ )
              [^\S\n]*+ $
            | (?<!_) _{10,}+ | (?<!=) ={10,}+ | (?<!-) -{10,}+ | (?<!\*) \*{10,}+ )
"""
_CANDIDATE = re.compile(_ENDS, re.VERBOSE | re.MULTILINE)
_CANDIDATE_OR_RULE = re.compile(rf"{_RULES} | {_ENDS}", re.VERBOSE | re.MULTILINE)
_RULE_SIGNS = ("____", "---", "===", "***", "~~~", "###", "–––")
# The stops of `_ENDS` alone, with their first sign in front: a search skips to the next such sign.
_STOP = re.compile(
    r"""
    (?P<stop> [.!?] (?: (?<=\.) (?<!\.\.) \.*+ | (?<=[^\s(.!?][.!?]) [.!?]*+ )
              ["')\]]{0,3} (?: (?=\s|$) | (?=[A-Z]|\d{1,2}[.)]\s) ) )
    """,
    re.VERBOSE,
)
_NUMBERED = re.compile(r"[0-9][.)]")
_NEW_SUBJECT = re.compile(r" The(?<=[a-z ] The)")
"""Without these two, a text of one line has no other ends than stops."""

_NEXT = re.compile(r"\s*+")
_PLAIN_END = re.compile(r"[a-z]{6}\.\s")
"""A full stop after a word too long for an abbreviation: the common case, looked at first."""

_LAST_WORD = re.compile(r"[\w.-]*\w(?=\W*$)")
_MARKER = re.compile(r"\(?\d{1,2}\s?")
_ITEM = re.compile(r"\s?\(?(\d{1,2})[.)]\s")
_LINE_OPENER = re.compile(r"[-*•·–]\s|\(?\d{1,2}[.)]\s|[A-Z][a-z]|[A-Z]\b|X{2,}")
_CAPITALS = re.compile(r"[A-Z]{2,}")
_SMALL = re.compile(r"[a-z]")
_SHORT_LINE = 60
"""Characters; text is wrapped later than that, so a shorter line ends where it was meant to."""

_WINDOW = 160
"""Characters looked at before a possible end; no abbreviation, label or line is longer."""

_LABEL = re.compile(r"[A-Z][\w /-]{0,50}:\Z")
_LABELLED_LINE = re.compile(r"[A-Z][\w ,/()-]{0,50}:(?:\s|$)")
_STOP_INSIDE = re.compile(r"\w[.!?][^\S\n]")


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences: half-open, in order, trimmed.

    They cover all text but spaces and separator lines. A list marker ("2.", "-") belongs to the
    sentence that it introduces.
    """
    return list(_spans(text))


@lru_cache(maxsize=1 << 14)  # the text steps ask for the same texts one after the other
def _spans(text: str) -> tuple[tuple[int, int], ...]:
    spans: list[tuple[int, int]] = []
    start = 0
    for end, following in (*_Splitter(text).ends(), (len(text), len(text))):
        piece = text[start:end]
        first, last = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        if any(map(str.isalnum, piece)) or (first < last and not spans):
            spans.append((first, last))
        elif first < last:
            spans[-1] = (spans[-1][0], last)  # stray punctuation ends the sentence before it
        start = following
    return tuple(spans)


class _Splitter:
    def __init__(self, text: str) -> None:
        self._text = text
        self._start = 0
        self._wrap: tuple[int, bool] | None = None

    def ends(self) -> Iterator[tuple[int, int]]:
        """Where a sentence ends and where the next one may begin, in order."""
        text = self._text
        for match in self._candidates().finditer(text):
            kind = match.lastgroup
            if kind == "rule":
                yield match.span()
            elif kind == "item" and self._continues_list(int(match["number"])):
                yield match.start(), match.start()
                self._start = match.start()
                continue
            elif self._ends_sentence(match, kind):
                yield match.end(), match.end()
            else:
                continue
            self._start = _NEXT.match(text, match.end()).end()  # type: ignore[union-attr]

    def _candidates(self) -> re.Pattern[str]:
        """What finds every possible end in this text."""
        text = self._text
        if any(sign in text for sign in _RULE_SIGNS):
            return _CANDIDATE_OR_RULE
        has_others = "\n" in text or _NUMBERED.search(text) or _NEW_SUBJECT.search(text)
        return _CANDIDATE if has_others else _STOP

    def _continues_list(self, number: int) -> bool:
        """A bare "2." opens an item only where item 1 is running: "1. No effusion 2. Clear"."""
        marker = _ITEM.match(self._text, self._start)
        return marker is not None and int(marker[1]) == number - 1

    def _ends_sentence(self, match: re.Match[str], kind: str | None) -> bool:
        if match[0] == "." and _PLAIN_END.match(self._text, max(match.start() - 6, 0)):
            return True
        before = self._text[max(self._start, match.start() - _WINDOW) : match.start()]
        after = self._text[match.end() : match.end() + 60]
        if kind == "missing":
            return not _is_open(before.rsplit("\n", 1)[-1])
        if kind == "line":
            return self._line_ends_sentence(before, after, match)
        line = before.rsplit("\n", 1)[-1].lstrip()
        if kind == "item":
            # "seen on image 2. Clear" ends there; "2. Clear" and "(2) Clear" do not.
            return match["item"].endswith(".") and not _MARKER.fullmatch(line + match["number"])
        if _MARKER.fullmatch(line):
            return False
        if match[0] != ".":
            return True
        last = _LAST_WORD.search(before, max(len(before) - 20, 0))
        word = last[0].rsplit("-", 1)[-1] if last and last.end() == len(before) else ""
        if after[:1].strip():
            # No space after it: "clear.No effusion", but not "J.Smith" or "v2.B".
            in_capitals = len(word) > 3 and word.isalpha() and after[:2].isalpha()
            return (len(word) > 1 and word[-1].islower()) or word.endswith("XX") or in_capitals
        return _word_may_end(word, after.lstrip())

    def _line_ends_sentence(self, before: str, after: str, match: re.Match[str]) -> bool:
        if match["line"].count("\n") > 1 or not before.strip():
            return True
        if _LABELLED_LINE.match(after):
            return True
        if not (_LINE_OPENER.match(after) or _opens_without_a_capital(before, after)):
            return False
        line = before.rsplit("\n", 1)[-1].strip()
        if _LABEL.match(line) or line.endswith(","):
            return False
        if _is_open(line):
            return False
        return not (_CAPITALS.match(after) and self._is_wrapped(match.start(), after))

    def _is_wrapped(self, end: int, after: str) -> bool:
        """Whether a line in capitals ends where the next word did not fit on it.

        Only the widths of the lines tell, and only in a text that ends its sentences by full
        stops: elsewhere each line is an entry of a list.
        """
        width, in_capitals = self._layout()
        line = self._text[max(end - _WINDOW, 0) : end].rsplit("\n", 1)[-1].strip()
        return in_capitals and len(line) + 1 + len(after.split(None, 1)[0]) > width

    def _layout(self) -> tuple[int, bool]:
        """The longest line; whether all letters are capitals and full stops stand in the lines."""
        if self._wrap is None:
            width = max(len(line.strip()) for line in self._text.split("\n"))
            capitals = _SMALL.search(self._text) is None
            self._wrap = width, capitals and _STOP_INSIDE.search(self._text) is not None
        return self._wrap


def _is_open(line: str) -> bool:
    """Whether the last word of a line needs one more: an article, a negation, an adjective."""
    words = [word.strip("(\"',;:") for word in line.lower().split()[-2:]]
    if not words:
        return False
    if words[-1] in _PREDICATES:
        return len(words) == 1 or (words[0] in _OPENERS and words[0] not in _NOUN_USE)
    return words[-1] in _DANGLING or words[-1] in _ATTRIBUTES


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
