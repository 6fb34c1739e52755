"""Assertion by cue words and their scope: NegEx (Chapman et al. 2001), ConText (Harkema 2009).

A cue ("no", "may represent", "has resolved") speaks of the findings that stand after it, before
it or around it, within its scope. A finding is present unless a cue says otherwise; absent wins
over possible, possible over probable. A structure (anatomy) is present wherever it is named as a
place: "no mass in the left lung" denies the mass.

A pronoun is judged like a finding, and what is said of it is said of the finding that it stands
for, in the same sentence or the one before: "Pneumothorax on the earlier film. This is no longer
visible."
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from storage.records import Assertion, Phrase
from tasks.engines.protocols import Fingerprint
from tasks.engines.text.assertion.cues import load_cues
from tasks.engines.text.assertion.sentence import (
    FollowUp,
    Judgement,
    Span,
    judge_sentence,
    refers_back,
    weaker,
)
from tasks.engines.text.collection import without_collection
from tasks.engines.text.normalization import normalize, words_of
from tasks.engines.text.sentences import split_sentences
from taxonomy.targets import Taxonomy
from taxonomy.words import tokenize

VERSION = "5"
_ANSWER = 40
"""Characters, at most, of a line that only answers the one before it."""


class ContextClassifier:
    """Tells present, probable, possible and absent apart, sentence by sentence."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        """Reads from the taxonomy which targets are anatomy, and which words are known."""
        targets = taxonomy.targets.values()
        self._anatomy = frozenset(t.name for t in targets if t.category == "anatomy")
        self._known = words_of(taxonomy)
        self._taxonomy = taxonomy.digest("lexicon")
        self._cues = load_cues()

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, version, and the digests of the cue words and of the taxonomy."""
        cues = self._cues.digest
        return {"name": "context", "version": VERSION, "cues": cues, "taxonomy": self._taxonomy}

    @without_collection
    def classify(
        self, texts: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Assertion]]:
        """One assertion per phrase, order kept."""
        return [self._classify_text(t, p) for t, p in zip(texts, phrases, strict=True)]

    def _classify_text(self, source: str, phrases: Sequence[Phrase]) -> list[Assertion]:
        if not phrases:
            return []
        normal = normalize(source, self._known)
        text = normal.text
        if text != source:
            phrases = [
                replace(p, start=normal.target(p.start), end=normal.target(p.end)) for p in phrases
            ]
        sentences = split_sentences(text) or [(0, len(text))]
        starts = [start for start, _ in sentences]
        members: dict[int, list[int]] = {}
        for i, phrase in sorted(enumerate(phrases), key=lambda item: item[1].start):
            members.setdefault(max(bisect_right(starts, phrase.start) - 1, 0), []).append(i)
        answers: list[Assertion] = ["present"] * len(phrases)
        topic: list[int] = []  # the findings that a pronoun may stand for
        for number, (start, end) in enumerate(sentences):
            own = members.get(number, [])
            refers = bool(topic) and refers_back(text[start:end], self._cues)
            if not own and not refers:
                topic = []
                continue
            # Phrases with the same words are judged as one.
            spans = [self._span(phrases[i], start) for i in own]
            distinct = tuple(dict.fromkeys(spans))
            judgement = _judged(self._answered(text, sentences, number), distinct)
            verdicts = dict(zip(distinct, judgement.assertions, strict=True))
            for i, span in zip(own, spans, strict=True):
                answers[i] = verdicts[span]
            if refers and judgement.follow_up:
                _apply(judgement.follow_up, topic, answers)
            findings = [i for i, span in zip(own, spans, strict=True) if not span.is_anatomy]
            topic = findings or (topic if refers else [])
        return answers

    def _answered(self, text: str, sentences: Sequence[tuple[int, int]], number: int) -> str:
        """A sentence, and a question with its answer: "Pneumothorax? None."."""
        start, end = sentences[number]
        sentence = text[start:end]
        if not sentence.endswith(("?", ":", "..", "…")) or number + 1 == len(sentences):
            return sentence
        answer = text[slice(*sentences[number + 1])].partition("\n")[0]
        return f"{sentence.rstrip('?:.… ')}: {answer}" if self._is_answer(answer) else sentence

    def _is_answer(self, line: str) -> bool:
        """Whether a line is an answer alone: "None", "Not seen."."""
        words = line.strip(" .!").lower()
        if words in self._cues.denials | self._cues.affirmations | self._cues.doubts:
            return True
        if len(words) > _ANSWER:
            return False
        tokens = tokenize(words)
        cue = self._cues.tree.longest(tokens, 0) if len(tokens) else None
        return cue is not None and cue[0] == len(tokens) and cue[1][0].finding == "before"

    def _span(self, phrase: Phrase, offset: int) -> Span:
        return Span(phrase.start - offset, phrase.end - offset, phrase.target in self._anatomy)


@lru_cache(maxsize=1 << 15)  # cleaning asks for sentences that are judged again later
def _judged(sentence: str, spans: tuple[Span, ...]) -> Judgement:
    return judge_sentence(sentence, spans, load_cues())


def _apply(said: FollowUp, topic: Sequence[int], answers: list[Assertion]) -> None:
    """Say of the findings of an earlier sentence what a later one says of its pronoun."""
    if said.pronoun == "one":
        if answers[topic[-1]] == "absent" and said.assertion != "absent":
            answers[topic[-1]] = said.assertion
        return
    there = [i for i in topic if answers[i] != "absent"]
    # "It" is the first finding and what that one may be: "Opacity, likely pneumonia."
    meant = [i for i in there if i == there[0] or answers[i] != "present"]
    for i in there if said.pronoun == "plural" else meant:
        answers[i] = weaker(answers[i], said.assertion)
