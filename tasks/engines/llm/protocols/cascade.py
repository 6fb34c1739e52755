"""The `cascade` for filtering: rules decide the clear cases, the model the rest.

A case is clear when its sentence holds no hedge at all ("may", "versus", "cannot be excluded"):
then present or absent depends on negation and its scope alone, which the embedded classifier
handles at no cost. The phrases decided by each are counted as `cascade_rules` and `cascade_llm`.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.records import Phrase
from tasks.engines.llm.protocols.spans_filter import by_sentence
from tasks.engines.metering import consume
from tasks.engines.protocols import AssertionClassifier, Fingerprint, PhraseAnswer
from tasks.engines.text.assertion import ContextClassifier
from tasks.engines.text.assertion.cues import load_cues
from taxonomy.targets import Taxonomy
from taxonomy.words import tokenize

VERSION = "1"


class CascadeFilter:
    """Asks the model only about phrases in sentences with a hedge."""

    def __init__(self, model: AssertionClassifier, taxonomy: Taxonomy) -> None:
        """The model decides the phrases that are not clear to the rules."""
        self._rules = ContextClassifier(taxonomy)
        self._model = model
        self._cues = load_cues()

    @property
    def fingerprint(self) -> Fingerprint:
        """Name and version, and everything of both classifiers."""
        rules = {f"rules_{key}": value for key, value in self._rules.fingerprint.items()}
        model = {f"model_{key}": value for key, value in self._model.fingerprint.items()}
        return {"name": "llm-cascade", "version": VERSION, **rules, **model}

    @property
    def concurrency(self) -> int | None:
        """That of the model's classifier."""
        return getattr(self._model, "concurrency", None)

    def classify(
        self, texts: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[PhraseAnswer]]:
        """One assertion per phrase, order kept."""
        ruled = self._rules.classify(texts, phrases)
        open_ = [self._unclear(text, own) for text, own in zip(texts, phrases, strict=True)]
        asked = self._model.classify(
            texts, [[own[i] for i in numbers] for own, numbers in zip(phrases, open_, strict=True)]
        )
        results: list[list[PhraseAnswer]] = []
        for by_rule, numbers, answers in zip(ruled, open_, asked, strict=True):
            decided: list[PhraseAnswer] = list(by_rule)
            for i, answer in zip(numbers, answers, strict=True):
                decided[i] = answer
            results.append(decided)
        left = sum(map(len, open_))
        consume(cascade_rules=sum(map(len, phrases)) - left, cascade_llm=left)
        return results

    def _unclear(self, text: str, phrases: Sequence[Phrase]) -> list[int]:
        """Numbers of the phrases that stand in a sentence with a hedge."""
        return [
            i
            for place, members in by_sentence(text, phrases)
            if self._hedges(text[place.start : place.end])
            for i in members
        ]

    def _hedges(self, sentence: str) -> bool:
        found = self._cues.tree.find(tokenize(sentence))
        return any(cue.meaning in ("probable", "possible") for _, _, cues in found for cue in cues)
