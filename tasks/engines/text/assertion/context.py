"""Assertion by cue words and their reach: NegEx (Chapman et al. 2001), ConText (Harkema 2009).

A cue ("no", "may represent", "has resolved") speaks of the findings that stand after it, before
it or around it, as far as it reaches. A finding is present unless a cue says otherwise; absent
wins over uncertain. A structure (anatomy) is present wherever it is named as a place: "no mass in
the left lung" denies the mass.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache

from storage.records import Assertion, Phrase
from tasks.engines.protocols import Fingerprint
from tasks.engines.text.assertion.cues import Cue, Cues, load_cues
from tasks.engines.text.assertion.scope import Clauses, FoundCue, Mention
from tasks.engines.text.sentences import split_sentences
from taxonomy.targets import Taxonomy, load_taxonomy
from taxonomy.words import HYPHENS, tokenize

VERSION = "3"
_ARTICLES = frozenset({"the", "a", "an"})

Span = tuple[int, int, bool]
"""A phrase in its sentence, as code points, and whether it is anatomy."""


class ContextClassifier:
    """Tells present, absent and uncertain apart, sentence by sentence."""

    def __init__(self, taxonomy: Taxonomy | None = None) -> None:
        """Reads which targets are anatomy from the taxonomy, the packaged one by default."""
        targets = (taxonomy or load_taxonomy()).targets
        self._anatomy = frozenset(t.name for t in targets.values() if t.category == "anatomy")
        self._cues = load_cues()
        self._judge = lru_cache(maxsize=1 << 15)(self._judge_sentence)

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, version and the digest of the cue words."""
        return {"name": "context", "version": VERSION, "cues": self._cues.digest}

    def classify(
        self, texts: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Assertion]]:
        """One assertion per phrase, order kept."""
        return [self._classify_text(t, p) for t, p in zip(texts, phrases, strict=True)]

    def _classify_text(self, text: str, phrases: Sequence[Phrase]) -> list[Assertion]:
        if not phrases:
            return []
        sentences = split_sentences(text) or [(0, len(text))]
        starts = [start for start, _ in sentences]
        members: dict[int, list[int]] = {}
        for i, phrase in enumerate(phrases):
            members.setdefault(max(bisect_right(starts, phrase.start) - 1, 0), []).append(i)
        answers: list[Assertion] = ["present"] * len(phrases)
        for number, indices in members.items():
            spans = tuple(self._span(phrases[i], sentences[number][0]) for i in indices)
            sentence = self._answered(text, sentences, number)
            for i, answer in zip(indices, self._judge(sentence, spans), strict=True):
                answers[i] = answer
        return answers

    def _answered(self, text: str, sentences: Sequence[tuple[int, int]], number: int) -> str:
        """A sentence, and a question with its answer: "Pneumothorax? None."."""
        start, end = sentences[number]
        sentence = text[start:end]
        if not sentence.endswith("?") or number + 1 == len(sentences):
            return sentence
        answer = text[slice(*sentences[number + 1])]
        is_bare = answer.strip(" .!").lower() in self._cues.answers
        return f"{sentence[:-1]}: {answer}" if is_bare else sentence

    def _span(self, phrase: Phrase, offset: int) -> Span:
        return phrase.start - offset, phrase.end - offset, phrase.target in self._anatomy

    def _judge_sentence(self, sentence: str, spans: tuple[Span, ...]) -> tuple[Assertion, ...]:
        tokens = tokenize(sentence)
        mentions = [
            Mention(bisect_right(tokens.ends, start), bisect_left(tokens.starts, end), is_anatomy)
            for start, end, is_anatomy in spans
        ]
        clauses = Clauses(tokens, mentions, self._cues)
        said: list[set[str]] = [set() for _ in mentions]
        for found in clauses.cues:
            for cue in found.cues:
                if cue.meaning in ("absent", "uncertain"):
                    for i in _reached(clauses, found, cue, self._cues):
                        said[i].add(cue.meaning)
        for found in clauses.cues:
            antecedent = _antecedent(clauses, found, self._cues)
            if antecedent is not None and said[antecedent]:
                said[antecedent] = {"uncertain"}
        return tuple(
            "absent" if "absent" in s else "uncertain" if "uncertain" in s else "present"
            for s in said
        )


def _reached(clauses: Clauses, found: FoundCue, cue: Cue, vocabulary: Cues) -> list[int]:
    """Indices of the mentions that the cue speaks of.

    A cue with nothing on its side looks to the other: "Pneumothorax: none", "Not seen: effusion".
    """
    first, last = found.first, found.after
    opens = not _has_words(clauses.words[: found.first])
    if cue.finding != "before" or opens:
        last = clauses.forward(found.after, cue)
    if cue.finding != "after" or not _has_words(clauses.words[found.after : last]):
        first = clauses.backward(found.first, cue)
    mentions = list(enumerate(clauses.mentions))
    inside = [i for i, m in mentions if m.first < found.after and found.first < m.after]
    ahead = [i for i, m in mentions if found.after <= m.first < last]
    behind = [i for i, m in reversed(mentions) if first < m.after <= found.first]
    if cue.about == "anatomy":
        candidates = inside + ahead[:1] + behind
        return [i for i in candidates if _is_missing(clauses, i, found, vocabulary)]
    limit = 1 if cue.reach == "nearest" else None
    findings = [
        [i for i in group if not clauses.mentions[i].is_anatomy] for group in (ahead, behind)
    ]
    near = [i for group in findings for i in group[:limit]]
    return [i for i in inside if not clauses.mentions[i].is_anatomy] + near


def _antecedent(clauses: Clauses, found: FoundCue, vocabulary: Cues) -> int | None:
    """Index of the finding that a hedge takes up by a pronoun: "a small one is possible"."""
    cue = next((c for c in found.cues if (c.meaning, c.finding) == ("uncertain", "before")), None)
    if cue is None:
        return None
    subject = range(clauses.backward(found.first, cue) + 1, found.first)
    if vocabulary.pronouns.isdisjoint(clauses.words[i] for i in subject):
        return None
    before = (i for i, m in enumerate(clauses.mentions) if m.after <= found.first)
    return next((i for i in reversed(list(before)) if not clauses.mentions[i].is_anatomy), None)


def _has_words(words: Sequence[str]) -> bool:
    return any(word[0].isalnum() for word in words)


def _is_missing(clauses: Clauses, index: int, found: FoundCue, vocabulary: Cues) -> bool:
    """Whether the structure itself is what the cue says is not there, and not a place."""
    mention = clauses.mentions[index]
    if not mention.is_anatomy or mention.first >= found.after:
        return mention.is_anatomy
    between = range(mention.after, found.first)
    if any(not other.is_anatomy and other.first in between for other in clauses.mentions):
        return False
    before = mention.first - 1
    while before >= 0 and clauses.words[before] in _ARTICLES | HYPHENS:
        before -= 1
    return before < 0 or clauses.words[before] not in vocabulary.places
