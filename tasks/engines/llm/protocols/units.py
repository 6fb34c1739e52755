"""What is asked about: sentences, each with as much of its surroundings as it needs.

A sentence that can be understood by itself is asked about once, however many reports contain
it. One that points back ("this", "it", "the former") or goes on with what was said before takes
the sentences before it along. The words that tell are data, in `context_words.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tasks.engines.text.sentences import split_sentences
from taxonomy.words import load_yaml

_LOOK_BACK = 2
"""Sentences taken along: what "it" stands for is nearly always in the last one or two."""

_SPACES = re.compile(r"\s+")
_WORD = re.compile(r"[a-z']+")
_LIST_MARKER = re.compile(r"\s*(?:\(?\d{1,2}[.)]|[-*•·–])\s*")


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence, white space levelled, and the text before it if it cannot stand alone."""

    sentence: str
    before: str = ""

    def payload(self) -> str | dict[str, str]:
        """The unit as it stands in a prompt."""
        return {"before": self.before, "sentence": self.sentence} if self.before else self.sentence


class Place(NamedTuple):
    """A sentence of a text, `text[start:end]`, with what is asked about it."""

    start: int
    end: int
    unit: Unit


@dataclass(frozen=True)
class _ContextWords:
    pointing: frozenset[str]
    opening: frozenset[str]
    answering: frozenset[str]


def places_of(text: str) -> list[Place]:
    """The sentences of a text, in order."""
    spans = split_sentences(text)
    return [
        Place(start, end, Unit(level_spaces(text[start:end]), _needed(text, spans, i)))
        for i, (start, end) in enumerate(spans)
    ]


def rejoin(text: str, places: Sequence[Place], sentences: Sequence[str]) -> tuple[str, list[int]]:
    """The text with its sentences replaced, and where each now starts.

    An empty sentence goes, with the gap before it; the gaps that stay are one space or line end.
    """
    joined = ""
    starts: list[int] = []
    end_of_last = 0
    for place, sentence in zip(places, sentences, strict=True):
        if sentence and joined:
            joined += "\n" if "\n" in text[end_of_last : place.start] else " "
        starts.append(len(joined))
        if sentence:
            joined += sentence
            end_of_last = place.end
    return joined, starts


def level_spaces(sentence: str) -> str:
    """The sentence with one space for every run of white space."""
    return _SPACES.sub(" ", sentence)


def is_context_free(sentence: str, previous: str = "") -> bool:
    """Whether a sentence means the same wherever it stands.

    It does not when it begins in the middle of a statement (small letter, conjunction), when it
    holds a word that points to another sentence, when it is nothing but a word like "none" or
    "normal", or when the sentence before it announces it with a colon.
    """
    words = _context_words()
    bare = _LIST_MARKER.sub("", sentence, count=1)
    spoken = _WORD.findall(bare.lower())
    if not spoken:
        return True
    if previous.rstrip().endswith(":") or bare[:1].islower() or spoken[0] in words.opening:
        return False
    if not words.pointing.isdisjoint(spoken):
        return False
    return not set(spoken) <= words.answering


def _needed(text: str, spans: Sequence[tuple[int, int]], i: int) -> str:
    start, end = spans[i]
    previous = text[slice(*spans[i - 1])] if i else ""
    if i == 0 or is_context_free(text[start:end], previous):
        return ""
    return level_spaces(text[spans[max(i - _LOOK_BACK, 0)][0] : spans[i - 1][1]])


@cache
def _context_words() -> _ContextWords:
    raw = load_yaml(Path(__file__).with_name("context_words.yaml"))
    return _ContextWords(**{name: frozenset(map(str, words)) for name, words in raw.items()})
