"""The lexicon extractor: phrases with their targets and modifiers, by vocabulary and grammar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from storage.records import Modifiers, Phrase
from tasks.engines.protocols import Fingerprint
from tasks.engines.text.collection import without_collection
from tasks.engines.text.lexicon.findings import FindingFinder
from tasks.engines.text.lexicon.modifiers import ModifierFinder
from tasks.engines.text.lexicon.places import PlaceFinder
from tasks.engines.text.lexicon.sentence import Sentence, read_sentence
from tasks.engines.text.lexicon.spelling import Spelling
from tasks.engines.text.lexicon.vocabulary import (
    compile_terms,
    known_words,
    load_vocabulary,
    sided,
    vocabulary_digest,
)
from tasks.engines.text.normalization import normalize, words_of
from tasks.engines.text.sentences import split_sentences
from taxonomy.matcher import PhraseTree
from taxonomy.targets import Taxonomy

_VERSION = "5"
_REMEMBERED = 1 << 15
"""Sentences kept with their phrases: reports repeat themselves about three to one."""

_READ: dict[str, Callable[[str], tuple[Phrase, ...]]] = {}
"""What finds the phrases of a sentence, by the digest of its taxonomy: cleaning and extraction
read many of the same."""


class LexiconExtractor:
    """Finds the names, synonyms and circumlocutions of a taxonomy's targets.

    Sentence by sentence, without looking at negation: "no effusion" has the phrase "effusion".
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        vocabulary = load_vocabulary()
        self._taxonomy = taxonomy
        self._known = words_of(taxonomy)
        phrases = compile_terms(vocabulary, taxonomy)
        self._terms = PhraseTree(phrases.values())
        self._spelling = Spelling(vocabulary.misspelled, known_words(vocabulary, phrases))
        self._places = PlaceFinder(vocabulary, taxonomy, phrases)
        self._findings = FindingFinder(vocabulary)
        self._modifiers = ModifierFinder(vocabulary)
        digest = taxonomy.digest("lexicon")
        self._phrases = _READ.setdefault(digest, lru_cache(_REMEMBERED)(self._sentence))
        self._fingerprint = {
            "name": "lexicon",
            "version": _VERSION,
            "taxonomy": digest,
            "vocabulary": vocabulary_digest(),
        }

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, version, and the digests of taxonomy and vocabulary."""
        return self._fingerprint

    @without_collection
    def extract(self, texts: Sequence[str]) -> list[list[Phrase]]:
        """Phrases of each text in order of start: two share all their words, or none."""
        return [self._text(text) for text in texts]

    def _text(self, source: str) -> list[Phrase]:
        normal = normalize(source, self._known)
        text = normal.text
        phrases: list[Phrase] = []
        for start, end in split_sentences(text):
            phrases += [
                Phrase(start + p.start, start + p.end, p.target, p.modifiers, p.match)
                for p in self._phrases(text[start:end])
            ]
        if text == source:
            return phrases
        return [
            Phrase(*normal.span(p.start, p.end), p.target, p.modifiers, p.match) for p in phrases
        ]

    def _sentence(self, text: str) -> tuple[Phrase, ...]:
        sentence = read_sentence(text, self._terms, self._spelling)
        if not sentence.units:
            return ()
        places = self._places.find(sentence)
        findings = self._findings.find(sentence, places)
        modifiers = self._modifiers.attach(sentence, findings, places)
        spans = [
            (
                finding.first,
                finding.after,
                sided(finding.target, said.laterality, self._taxonomy),
                said,
            )
            for finding, said in zip(findings, modifiers, strict=True)
            if finding.target in self._taxonomy
        ]
        taken = {t for first, after, _, _ in spans for t in range(first, after)}
        for place in places:
            if taken.isdisjoint(range(place.first, place.after)):
                said = Modifiers(place.side, place.zones)
                spans += [(place.first, place.after, target, said) for target in place.targets]
        return tuple(
            _phrase(sentence, first, after, target, said)
            for first, after, target, said in sorted(spans, key=lambda span: span[0])
        )


def _phrase(sentence: Sentence, first: int, after: int, target: str, said: Modifiers) -> Phrase:
    start, end = sentence.tokens.starts[first], sentence.tokens.ends[after - 1]
    if sentence.misspelled.isdisjoint(range(first, after)):
        return Phrase(start, end, target, said)
    return Phrase(start, end, target, said, "fuzzy")
