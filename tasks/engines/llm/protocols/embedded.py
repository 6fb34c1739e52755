"""The embedded text steps as the protocols use them: to check a model, and in its place.

A model's cleaning is compared with theirs (`tasks.engines.llm.protocols.meaning`), words that are
no target's name are looked up in their lexicon, and they do a sentence that the model failed at
where the setting `on_failure` is `rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from storage.records import Assertion, Phrase
from tasks.engines.llm.digest import digest
from tasks.engines.llm.protocols.units import normalize_spaces
from tasks.engines.protocols import CleanedText, Failure
from tasks.engines.text.assertion import ContextClassifier
from tasks.engines.text.cleaning import RulesCleaner
from tasks.engines.text.lexicon import LexiconExtractor
from taxonomy.targets import Taxonomy


class EmbeddedSteps:
    """The embedded cleaner, extractor and filter of one taxonomy."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.cleaner = RulesCleaner(taxonomy)
        self.extractor = LexiconExtractor(taxonomy)
        self.filter = ContextClassifier(taxonomy)
        engines = (self.cleaner, self.extractor, self.filter)
        prints = [dict(engine.fingerprint) for engine in engines]
        self.digest = digest(*({k: v for k, v in p.items() if k != "taxonomy"} for p in prints))

    def cleaned(self, text: str) -> str | Failure:
        """A sentence or text as the rules leave it, white space normalized; "": dropped."""
        (answer,) = self.cleaner.clean([text])
        return normalize_spaces(answer.text) if isinstance(answer, CleanedText) else answer

    def phrases(self, text: str, offset: int = 0) -> list[Phrase]:
        """The phrases of a sentence or text, marked as found by the rules.

        Their offsets are counted from `offset` code points before it.
        """
        return [
            replace(phrase, start=offset + phrase.start, end=offset + phrase.end, by_rules=True)
            for phrase in self.extractor.extract([text])[0]
        ]

    def assertions(self, text: str, phrases: Sequence[Phrase]) -> list[Assertion]:
        """What a text states of its phrases."""
        return self.filter.classify([text], [phrases])[0]


@cache
def embedded_steps(taxonomy: Taxonomy) -> EmbeddedSteps:
    """The embedded steps of a taxonomy, shared, so that a sentence is read once."""
    return EmbeddedSteps(taxonomy)
