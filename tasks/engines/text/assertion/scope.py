"""How far a cue reaches: where a clause ends, and where a statement of its own begins.

ConText (Harkema et al. 2009) ends the reach of a cue at a fixed list of words. Reports need more:
a comma or "and" may go on with a negated list ("no effusion, pneumothorax, or mass") or begin a
new statement ("no effusion, mild cardiomegaly"), and only what follows tells which.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.engines.text.assertion.cues import Cue, Cues
from taxonomy.words import Tokens

_COORDINATORS = frozenset({",", "and", "with"})
_ALTERNATIVES = frozenset({"or", "nor", "/"})
_ASIDES = frozenset({":", "("})
_LINKS = frozenset({"the", "a", "an", "any", "and", "with"})


@dataclass(frozen=True, slots=True)
class Mention:
    """A phrase in a sentence: first token, token after the last, and whether it is anatomy."""

    first: int
    after: int
    is_anatomy: bool


@dataclass(frozen=True, slots=True)
class FoundCue:
    """A cue phrase in a sentence; it may carry several cues."""

    first: int
    after: int
    cues: tuple[Cue, ...]


class Clauses:
    """The words of one sentence with its mentions and cues; indices are tokens."""

    def __init__(self, tokens: Tokens, mentions: list[Mention], vocabulary: Cues) -> None:
        self.words = [form.word for form in tokens.forms]
        self.mentions = mentions
        self.cues = [FoundCue(*found) for found in vocabulary.tree.find(tokens)]
        self._cue_at = {cue.first: cue for cue in self.cues}
        self._vocabulary = vocabulary
        self._mentioned = {i for m in mentions for i in range(m.first, m.after)}
        self._mention_starts = {m.first for m in mentions}
        self._stopping = {c.first for c in self.cues if c.cues[0].meaning == "stop"}
        self._verbs = {i for i in range(len(self.words)) if self._is_verb(i)}
        self._listed_on = self._list_runs()
        self._ended: dict[tuple[int, str], bool] = {}

    def forward(self, start: int, cue: Cue) -> int:
        """The token at which a cue that ends before token `start` ceases to reach."""
        for i in range(start, len(self.words)):
            if i in self._stopping or (self.words[i] in _ASIDES and i > start):
                return i
            if self.words[i] in _COORDINATORS and self._ends_at(i, start, cue):
                return i
        return len(self.words)

    def backward(self, before: int, cue: Cue) -> int:
        """The last token that a cue beginning at token `before` doesn't reach; -1 for none.

        A verb ends it, and a comma, unless it is the cue's own or a list is running.
        """
        own_comma = before if cue.reach == "nearest" else before - 1
        listed = False
        for i in range(before - 1, -1, -1):
            word = self.words[i]
            if i in self._stopping or (word in self._vocabulary.verbs and i not in self._mentioned):
                return i
            if word == "," and not listed and i < own_comma:
                return i
            listed = listed or word in ("and", *_ALTERNATIVES)
        return -1

    def _ends_at(self, i: int, start: int, cue: Cue) -> bool:
        """Whether a comma, "and" or "with" at token i ends the reach of a cue."""
        if cue.reach == "nearest":
            return True
        if cue.reach == "sentence" or i == start or self._listed_on[i]:
            return False
        if self._begins_statement(i, cue.meaning):
            return True
        if cue.meaning == "uncertain":
            return self._ends_hedge(i, start)
        return self._is_fresh(i)

    def _begins_statement(self, i: int, meaning: str) -> bool:
        """Whether a verb or a cue of another meaning makes the part after token i one."""
        # Every cue before token i asks this; a long list would be read again for each of them.
        key = (i, meaning)
        if key not in self._ended:
            part = range(i + 1, self._part_end(i + 1))
            self._ended[key] = any(j in self._verbs or self._contradicts(j, meaning) for j in part)
        return self._ended[key]

    def _ends_hedge(self, i: int, start: int) -> bool:
        """A hedge goes over "and", over "with" to its first finding, over commas inside a list."""
        if self.words[i] == "with":
            return any(start <= m.first < i for m in self.mentions)
        if self._is_fresh(i):
            return True
        if self.words[i] == "and":
            return False
        if self.words[i + 1 : i + 2] == ["and"]:
            return "," not in self.words[start:i]
        return self._mention_starts.isdisjoint((i + 1, i + 2))

    def _is_fresh(self, i: int) -> bool:
        """Whether the first word after token i and links is one that begins a statement."""
        first = i + 1
        while first < len(self.words) and self.words[first] in _LINKS:
            first += 1
        if first == len(self.words) or first in self._stopping:
            return False
        return self.words[first] in self._vocabulary.fresh

    def _list_runs(self) -> list[bool]:
        """For each token, whether an "or" further on tells that a list goes on over it."""
        runs = [False] * len(self.words)
        for i in range(len(self.words) - 1, 0, -1):
            runs[i - 1] = i not in self._stopping and i not in self._verbs
            runs[i - 1] = runs[i - 1] and (self.words[i] in _ALTERNATIVES or runs[i])
        return runs

    def _contradicts(self, i: int, meaning: str) -> bool:
        """Whether a cue of the other meaning begins at token i."""
        found = self._cue_at.get(i)
        return found is not None and any(
            other.meaning in ("absent", "uncertain") and other.meaning != meaning
            for other in found.cues
        )

    def _part_end(self, start: int) -> int:
        """The next comma or closing word from token `start` on."""
        ends = (
            j for j in range(start, len(self.words)) if j in self._stopping or self.words[j] == ","
        )
        return next(ends, len(self.words))

    def _is_verb(self, i: int) -> bool:
        """Whether token i is a verb with its own subject, and not one a list shares."""
        if self.words[i] not in self._vocabulary.verbs or i in self._mentioned:
            return False
        return self._vocabulary.shared.isdisjoint(self.words[i + 1 : i + 3])
