"""Holds every rewriting against the sentence it came from: it may tell less, never the opposite.

A rule sees words, not what they deny. So a rewritten sentence is read by the same vocabulary and
the same cues as the sentence before: a finding whose assertion has become another one, or a
finding that was not there, shows that a rule took a word too many.
"""

from __future__ import annotations

import re
from functools import lru_cache

from storage.records import Assertion
from tasks.engines.text.assertion import ContextClassifier
from tasks.engines.text.lexicon import LexiconExtractor
from taxonomy.targets import Taxonomy


class Guard:
    """Compares what two sentences say of the findings that the taxonomy knows."""

    def __init__(self, polarity: re.Pattern[str], taxonomy: Taxonomy) -> None:
        """Learn what findings there are.

        Args:
            polarity: finds the words that deny or doubt; without one, a sentence only states.
            taxonomy: the findings.
        """
        self._polarity = polarity
        self._taxonomy = taxonomy
        self._extractor = LexiconExtractor(self._taxonomy)
        self._classifier = ContextClassifier(self._taxonomy)

    @property
    def digest(self) -> str:
        """What decides its answers, beside the taxonomy."""
        engines = (self._extractor.fingerprint, self._classifier.fingerprint)
        said = (item for engine in engines for item in engine.items() if item[0] != "taxonomy")
        return " ".join(f"{key}={value}" for key, value in said)

    def agrees(self, before: str, after: str) -> bool:
        """Whether `after` asserts of each of its findings what `before` does."""
        if not self._polarity.search(before) and not self._polarity.search(after):
            return True
        said = self._assertions(before)
        for target, answers in list(said.items()):
            for broader in self._taxonomy[target].parents:  # a place may be lost with a word
                said.setdefault(broader, set()).update(answers)
        return all(answers <= said.get(t, set()) for t, answers in self._assertions(after).items())

    def answered(self, sentence: str) -> list[tuple[int, int, Assertion]]:
        """Spans of the findings of a sentence, half-open, and how it asserts each."""
        [phrases] = self._extractor.extract([sentence])
        [answers] = self._classifier.classify([sentence], [phrases])
        return [
            (phrase.start, phrase.end, answer)
            for phrase, answer in zip(phrases, answers, strict=True)
            if self._taxonomy[phrase.target].category == "abnormality"
        ]

    def _assertions(self, sentence: str) -> dict[str, set[str]]:
        [phrases] = self._extractor.extract([sentence])
        [answers] = self._classifier.classify([sentence], [phrases])
        said: dict[str, set[str]] = {}
        for phrase, answer in zip(phrases, answers, strict=True):
            if self._taxonomy[phrase.target].category == "abnormality":
                said.setdefault(phrase.target, set()).add(answer)
        return said


@lru_cache(maxsize=16)
def shared_guard(polarity: re.Pattern[str], taxonomy: Taxonomy) -> Guard:
    """One guard for all cleaners of a process, so that a sentence is read once."""
    return Guard(polarity, taxonomy)
