"""The units of requests: sentences, with the text before them where they refer to it.

A sentence that can be understood by itself is requested once, however many reports contain it. One
that refers back ("this", "it", "the former") or continues a statement is sent with the sentences
before it. The words that decide this are in `context_words.yaml`.
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
"""Sentences; the antecedent of "it" is nearly always in the last one or two."""

_SPACES = re.compile(r"\s+")
_WORD = re.compile(r"[a-z']+")
_LIST_MARKER = re.compile(r"\s*(?:\(?\d{1,2}[.)]|[-*•·–])\s*")


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence, white space normalized, and the text before it if it refers to that."""

    sentence: str
    before: str = ""

    def payload(self) -> str | dict[str, str]:
        """The unit as it is written in a prompt."""
        return {"before": self.before, "sentence": self.sentence} if self.before else self.sentence


class SentencePlace(NamedTuple):
    """A sentence of a text, `text[start:end]`, with its unit."""

    start: int
    end: int
    unit: Unit


@dataclass(frozen=True)
class _ContextWords:
    pointing: frozenset[str]
    opening: frozenset[str]
    answering: frozenset[str]


def sentence_places(text: str) -> list[SentencePlace]:
    """The sentences of a text, in order."""
    spans = split_sentences(text)
    return [
        SentencePlace(start, end, Unit(normalize_spaces(text[start:end]), _needed(text, spans, i)))
        for i, (start, end) in enumerate(spans)
    ]


def rejoin(
    text: str, places: Sequence[SentencePlace], sentences: Sequence[str]
) -> tuple[str, list[int]]:
    """The text with its sentences replaced, and where each now starts.

    An empty sentence is removed with the gap before it; other gaps become one space or line end.
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


def normalize_spaces(sentence: str) -> str:
    """The sentence with one space for every run of white space."""
    return _SPACES.sub(" ", sentence)


def is_context_free(sentence: str, previous: str = "") -> bool:
    """Whether a sentence means the same in any report.

    It does not if it begins in the middle of a statement (small letter, conjunction), contains a
    word that refers to another sentence, consists only of words like "none" or "normal", or
    follows a sentence that ends with a colon.
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
    return normalize_spaces(text[spans[max(i - _LOOK_BACK, 0)][0] : spans[i - 1][1]])


@cache
def _context_words() -> _ContextWords:
    raw = load_yaml(Path(__file__).with_name("context_words.yaml"))
    return _ContextWords(**{name: frozenset(map(str, words)) for name, words in raw.items()})
