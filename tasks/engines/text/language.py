"""Tells whether a text is in English, by the words that bind its sentences.

Rules and vocabulary are English; on another language they would read nonsense: "kein", unknown,
leaves a pneumothorax present. The words are data, in `languages.yaml`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from taxonomy.words import load_yaml

_WORD = re.compile(r"[^\W\d_]{1,30}+")
_READ = 3000
"""Characters of a text that are looked at; the language of a report does not change later."""

_FOREIGN_LETTERS = 0.3
"""Share of letters outside the Latin alphabet from which a text is not in a Latin script."""

_FEWEST_LETTERS = 4
"""Fewer letters of another script are signs in an English text: α, µ, β."""

_SHORTEST_WORD = 3
"""Letters of a word that alone may tell a language; two letters may be anything: "ÄR"."""

_SURE = 2
"""What a word that English never uses counts, where a weak one counts 1."""


@dataclass(frozen=True)
class _Words:
    english: frozenset[str]
    others: Mapping[str, tuple[tuple[str, int], ...]]
    tells: frozenset[str]


def foreign_language(text: str) -> str | None:
    """The name of the language of a text that is not in English; none for English.

    A text in which no word tells is taken for English: "Cardiomegaly. PTX."
    """
    start = text[:_READ]
    if not start.isascii() and _script_is_foreign(start):
        return "a language in another script"
    words = set(_WORD.findall(start.lower()))
    lists = _words()
    if lists.tells.isdisjoint(words):
        return None
    scores = Counter(
        {
            name: sum(weight for word, weight in entries if word in words)
            for name, entries in lists.others.items()
        }
    )
    [(name, score)] = scores.most_common(1)
    english = len(words & lists.english)
    return name if score >= _SURE and score > english else None


def _script_is_foreign(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    foreign = sum(ord(c) > 0x24F for c in letters)  # the end of Latin Extended-B
    return foreign >= max(_FEWEST_LETTERS, _FOREIGN_LETTERS * len(letters))


@cache
def _words() -> _Words:
    raw = load_yaml(Path(__file__).with_name("languages.yaml"))
    weak = frozenset(raw["weak"])
    others = {
        name: tuple((word, 1 if word in weak else _SURE) for word in dict.fromkeys(words))
        for name, words in raw["others"].items()
    }
    sure = frozenset(
        word
        for words in others.values()
        for word, weight in words
        if weight > 1 and len(word) >= _SHORTEST_WORD
    )
    return _Words(frozenset(raw["english"]), others, sure)
