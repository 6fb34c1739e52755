"""Longest match of many phrases in a text, over words rather than letters.

A tree of words: its size does not slow it down, and a match always ends at a word boundary.
Hyphens and articles inside a phrase are stepped over, so "ground-glass" matches "ground glass"
and "arch of the aorta" matches "arch of aorta".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from taxonomy.targets import Taxonomy
from taxonomy.words import STEPPED_OVER, Tokens, phrase_key, tokenize

Value = TypeVar("Value")


class _Node(Generic[Value]):
    __slots__ = ("next", "value")

    def __init__(self) -> None:
        self.next: dict[str, _Node[Value]] = {}
        self.value: Value | None = None


class PhraseTree(Generic[Value]):
    """Phrases with a value each, to be looked up at a position of a tokenised text."""

    def __init__(self, phrases: Iterable[tuple[str, Value]]) -> None:
        self._root: _Node[Value] = _Node()
        for phrase, value in phrases:
            node = self._root
            for word in phrase_key(phrase):
                node = node.next.setdefault(word, _Node())
            node.value = value

    def longest(self, tokens: Tokens, start: int) -> tuple[int, Value] | None:
        """The longest phrase that begins at token `start`: the token after it, and its value."""
        forms = tokens.forms
        node = self._root
        best: tuple[int, Value] | None = None
        for i in range(start, len(forms)):
            form = forms[i]
            following = node.next.get(form.word)
            if form.capitals is not None:
                following = node.next.get(form.capitals, following)
            if following is None:
                if i > start and form.word in STEPPED_OVER:
                    continue
                break
            node = following
            if node.value is not None:
                best = i + 1, node.value
        return best

    def find(self, tokens: Tokens) -> Iterator[tuple[int, int, Value]]:
        """Leftmost longest phrases, never overlapping: first token, token after, value."""
        openings = self._root.next
        after = 0
        for i, form in enumerate(tokens.forms):
            if i < after or not (form.word in openings or form.capitals in openings):
                continue
            if found := self.longest(tokens, i):
                after = found[0]
                yield i, after, found[1]


@dataclass(frozen=True, slots=True)
class Match:
    """Words that are a name or a synonym of a target: `text[start:end]`, code points."""

    start: int
    end: int
    target: str


class Matcher:
    """Finds the names and synonyms of a taxonomy in a text, without looking at their context."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._tree = PhraseTree(
            (phrase, target.name)
            for target in taxonomy.targets.values()
            for phrase in target.phrases
        )

    def find(self, text: str) -> list[Match]:
        """Leftmost longest matches, in order, never overlapping."""
        tokens = tokenize(text)
        return [
            Match(tokens.starts[i], tokens.ends[j - 1], target)
            for i, j, target in self._tree.find(tokens)
        ]
