"""Brings the words that a model proposes back to the sentence that they must come from.

A proposal is accepted only where its words stand: as they are, apart from case and white space,
or, marked as such, within a bounded edit distance that touches no side, level, negation or
number. Where proposals overlap the longest one wins. Whatever is not accepted is a failure with
its reason.
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
_DECISIVE = re.compile(r"\b(?:left|right|bilateral|both|upper|middle|lower|no|not|without)\b|\d+")
"""Words that likeness may not pass over."""

_EDGES = " \t\n.,;:\"'"
_LEAST_RATIO = 0.85
_LEAST_LETTERS = 6


class Proposal(NamedTuple):
    """Words that name a target; `words#2` are their second occurrence, `words` every one."""

    words: str
    target: str


@dataclass(frozen=True, slots=True)
class Aligned:
    """Where an accepted proposal stands: `sentence[start:end]`, code points, half-open."""

    start: int
    end: int
    proposal: int
    match: Match


def occurrences(sentence: str, words: str) -> list[tuple[int, int]]:
    """Where words stand in a sentence as whole words, case and white space aside.

    From left to right, never overlapping: "left left" stands once in "left left left".
    """
    pieces = words.strip(_EDGES).split()
    if not pieces:
        return []
    pattern = r"(?<!\w)" + r"\s+".join(map(re.escape, pieces)) + r"(?!\w)"
    return [match.span() for match in re.finditer(pattern, sentence, re.IGNORECASE)]


def align(
    sentence: str, proposals: Sequence[Proposal]
) -> tuple[list[Aligned], list[tuple[int, Failure]]]:
    """Places of the accepted proposals in order of start, never overlapping, and the others.

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
            match: Match = "exact" if sentence[start:end] == bare_words(words) else "levelled"
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
    """The run of words most like the proposed ones, if it is like enough and the only best."""
    wanted = words.strip(_EDGES).lower()
    if len(wanted) < _LEAST_LETTERS:
        return None
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    rated: list[tuple[float, tuple[int, int]]] = []
    for start, end in _windows(sentence, len(_WORD.findall(wanted))):
        candidate = sentence[start:end].lower()
        matcher.set_seq1(candidate)
        if matcher.real_quick_ratio() < _LEAST_RATIO or matcher.ratio() < _LEAST_RATIO:
            continue
        if sorted(_DECISIVE.findall(candidate)) == sorted(_DECISIVE.findall(wanted)):
            rated.append((matcher.ratio(), (start, end)))
    rated.sort(reverse=True)
    is_tie = len(rated) > 1 and rated[0][0] == rated[1][0]
    return rated[0][1] if rated and not is_tie else None


def _windows(sentence: str, count: int) -> Iterator[tuple[int, int]]:
    words = [match.span() for match in _WORD.finditer(sentence)]
    for size in range(max(count - 1, 1), count + 2):
        for first in range(len(words) - size + 1):
            yield words[first][0], words[first + size - 1][1]
