"""Aligns the words that a model proposes with the sentence that they must occur in.

A proposal is accepted where its words occur exactly, but for case and white space (`normalized`),
or within a bounded edit distance (`fuzzy`) that changes no side, level, negation or number. Of
overlapping proposals the longest is kept. A rejected proposal is a failure with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

from storage.records import Match
from tasks.engines.protocols import Failure

_OCCURRENCE = re.compile(r"(.+)#(\d{1,2})")
_WORD = re.compile(r"\w+(?:['/-]\w+)*")
_PROTECTED_WORDS = re.compile(
    r"\b(?:left|right|bilateral|both|upper|middle|lower|no|not|without)\b|\d+"
)
"""Words that a fuzzy match must have in common: they change what the phrase means."""

_EDGE_CHARACTERS = " \t\n.,;:\"'"
"""Not part of a phrase; models add or drop them at its ends."""

_MIN_SIMILARITY = 0.85
"""Ratio of `difflib`: about one changed letter in seven, so a typing error but no other word."""

_MIN_FUZZY_CHARACTERS = 6
"""Characters; in shorter words one letter makes another word, such as "hila" and "hilar"."""


class Proposal(NamedTuple):
    """Words that name a target; `words#2` is their second occurrence, `words` all of them."""

    words: str
    target: str


@dataclass(frozen=True, slots=True)
class Aligned:
    """Where an accepted proposal occurs: `sentence[start:end]`, code points, half-open."""

    start: int
    end: int
    proposal: int
    match: Match


def occurrences(sentence: str, words: str) -> list[tuple[int, int]]:
    """Where words occur in a sentence as whole words, ignoring case and white space.

    From left to right, never overlapping: "left left" occurs once in "left left left".
    """
    pieces = words.strip(_EDGE_CHARACTERS).split()
    if not pieces:
        return []
    pattern = r"(?<!\w)" + r"\s+".join(map(re.escape, pieces)) + r"(?!\w)"
    return [match.span() for match in re.finditer(pattern, sentence, re.IGNORECASE)]


def align(
    sentence: str, proposals: Sequence[Proposal]
) -> tuple[list[Aligned], list[tuple[int, Failure]]]:
    """The accepted proposals in order of start, never overlapping, and the rejected ones.

    A failure comes with the number of its proposal. Codes: `not_in_sentence`,
    `overlaps_longer_phrase`.
    """
    found = [_find(sentence, proposal.words) for proposal in proposals]
    failures: dict[int, Failure] = {}
    free = [True] * len(sentence)
    aligned: list[Aligned] = []
    for i in sorted(range(len(proposals)), key=lambda i: _precedence(proposals[i], found[i])):
        words = proposals[i].words
        spans, is_fuzzy = found[i]
        if not spans:
            failures[i] = Failure(
                "not_in_sentence", f"“{words}” is not in the sentence “{sentence}”"
            )
            continue
        taken = [(start, end) for start, end in spans if all(free[start:end])]
        if not taken:
            detail = f"“{words}” is part of a longer phrase of “{sentence}”"
            failures[i] = Failure("overlaps_longer_phrase", detail)
        for start, end in taken:
            free[start:end] = [False] * (end - start)
            match: Match = "exact" if sentence[start:end] == bare_words(words) else "normalized"
            aligned.append(Aligned(start, end, i, "fuzzy" if is_fuzzy else match))
    return sorted(aligned, key=lambda a: a.start), sorted(failures.items())


def bare_words(words: str) -> str:
    """The words of a proposal without the number of their occurrence."""
    numbered = _OCCURRENCE.fullmatch(words)
    return numbered[1] if numbered else words


def _precedence(proposal: Proposal, found: tuple[list[tuple[int, int]], bool]) -> tuple[int, bool]:
    spans, _ = found
    length = spans[0][1] - spans[0][0] if spans else 0
    return -length, _OCCURRENCE.fullmatch(proposal.words) is None


def _find(sentence: str, words: str) -> tuple[list[tuple[int, int]], bool]:
    if spans := occurrences(sentence, words):
        return spans, False
    if numbered := _OCCURRENCE.fullmatch(words):
        number = int(numbered[2])
        return occurrences(sentence, numbered[1])[number - 1 : number] if number else [], False
    near = _nearest(sentence, words)
    return ([near] if near else []), True


def _nearest(sentence: str, words: str) -> tuple[int, int] | None:
    """The words most similar to the proposed ones, if similar enough and without a tie."""
    wanted = words.strip(_EDGE_CHARACTERS).lower()
    if len(wanted) < _MIN_FUZZY_CHARACTERS:
        return None
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    rated: list[tuple[float, tuple[int, int]]] = []
    for start, end in _windows(sentence, len(_WORD.findall(wanted))):
        candidate = sentence[start:end].lower()
        matcher.set_seq1(candidate)
        if matcher.real_quick_ratio() < _MIN_SIMILARITY or matcher.ratio() < _MIN_SIMILARITY:
            continue
        if sorted(_PROTECTED_WORDS.findall(candidate)) == sorted(_PROTECTED_WORDS.findall(wanted)):
            rated.append((matcher.ratio(), (start, end)))
    rated.sort(reverse=True)
    is_tie = len(rated) > 1 and rated[0][0] == rated[1][0]
    return rated[0][1] if rated and not is_tie else None


def _windows(sentence: str, count: int) -> Iterator[tuple[int, int]]:
    words = [match.span() for match in _WORD.finditer(sentence)]
    for size in range(max(count - 1, 1), count + 2):
        for first in range(len(words) - size + 1):
            yield words[first][0], words[first + size - 1][1]
