"""The `joint` protocol: one request for cleaning, extraction and assertion.

There are still three steps: the cleaner sends the requests and caches the phrases of the answers
under the cleaned text, where the extractor and the filter find them. If that cache is lost, or
lacks a phrase, they fall back to the `spans` protocol.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field, TypeAdapter

from storage.records import Assertion, Match, Phrase
from tasks.engines.llm.cache.response_cache import ResponseCache, ResponseCaches
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest
from tasks.engines.llm.digest import digest
from tasks.engines.llm.prompts.prompting import load_prompt, numbered, protocol_fingerprint
from tasks.engines.llm.protocols.alignment import Proposal
from tasks.engines.llm.protocols.batched_requests import MALFORMED
from tasks.engines.llm.protocols.json_answers import (
    answer_bound,
    closed_object,
    read_json,
    require_numbers,
)
from tasks.engines.llm.protocols.names import TargetNames
from tasks.engines.llm.protocols.phrases import PhraseBuilder
from tasks.engines.llm.protocols.spans import (
    Changes,
    SentenceStep,
    SpansExtractor,
    changes_schema,
    cleaned_text,
    phrases_schema,
    read_changes,
)
from tasks.engines.llm.protocols.spans_filter import ASSERTIONS, SpansFilter
from tasks.engines.llm.protocols.step_engine import StepEngine
from tasks.engines.llm.protocols.units import SentencePlace, Unit, rejoin, sentence_places
from tasks.engines.protocols import CleanedText, Failure, Fingerprint
from taxonomy.targets import Taxonomy

VERSION = "1"
NAME = "llm-joint"


class _Answer(Changes):
    present: dict[str, dict[str, str]] = Field(default_factory=dict)
    probable: dict[str, dict[str, str]] = Field(default_factory=dict)
    possible: dict[str, dict[str, str]] = Field(default_factory=dict)
    absent: dict[str, dict[str, str]] = Field(default_factory=dict)


_ANSWER = TypeAdapter(_Answer)


class SentenceAnnotation(NamedTuple):
    """What one answer says of a sentence: its new text as in `CleanStep`, and its phrases."""

    text: str | None
    phrases: Sequence[tuple[str, str, Assertion]]


class _AssertedPhrase(NamedTuple):
    """A phrase of a cleaned text, code points, and what is said of it."""

    start: int
    end: int
    target: str
    assertion: Assertion
    match: Match


class JointStep(SentenceStep):
    """Asks for everything about some sentences at once; answers annotations."""

    def __init__(self, chat: ChatEngine, dataset: str, taxonomy: Taxonomy) -> None:
        self._names = TargetNames(taxonomy)
        self.prompt = load_prompt("joint", "annotate", dataset, {"targets": self._names.listing()})
        self.fingerprint = protocol_fingerprint(
            NAME, VERSION, self.prompt, chat, taxonomy=taxonomy.digest("lexicon")
        )

    def request(self, units: Sequence[Unit], complaint: str = "") -> ChatRequest:
        """The request about some sentences."""
        data = numbered([unit.payload() for unit in units])
        phrases = {str(i): {"$ref": "#/$defs/phrases"} for i in range(1, len(units) + 1)}
        schema = closed_object(
            changes_schema(len(units)) | {a: closed_object(phrases) for a in ASSERTIONS},
            **{"$defs": {"phrases": phrases_schema(self._names)}},
        )
        return ChatRequest(self.prompt.messages(data, complaint), 2 * answer_bound(data), schema)

    def read(self, text: str, units: Sequence[Unit]) -> list[SentenceAnnotation | Failure]:
        """What is said of each sentence; the proposals are not yet aligned with it."""
        answer = read_json(_ANSWER, text)
        texts = read_changes(answer, units, self._names)
        phrases: list[list[tuple[str, str, Assertion]]] = [[] for _ in units]
        for assertion in ASSERTIONS:
            said: dict[str, dict[str, str]] = getattr(answer, assertion)
            require_numbers(said, len(units))
            for number, named in said.items():
                phrases[int(number) - 1] += [(w, target, assertion) for w, target in named.items()]
        return [
            new if isinstance(new, Failure) else _annotation(new, own)
            for new, own in zip(texts, phrases, strict=True)
        ]


def _annotation(
    text: str | None, phrases: Sequence[tuple[str, str, Assertion]]
) -> SentenceAnnotation | Failure:
    if text == "" and phrases:
        return Failure(MALFORMED, f"the sentence is dropped, yet it has “{phrases[0][0]}”")
    return SentenceAnnotation(text, phrases)


class JointCleaner(StepEngine[Unit]):
    """Cleans as the model says, and caches the phrases of its answers."""

    def __init__(
        self, chat: ChatEngine, caches: ResponseCaches, taxonomy: Taxonomy, dataset: str
    ) -> None:
        """Requests through `chat` what `caches` lack, with the prompts of a dataset."""
        super().__init__(JointStep(chat, dataset, taxonomy), chat, caches)
        self._builder = PhraseBuilder(taxonomy)
        self._phrase_cache = _shared_phrase_cache(caches, self.fingerprint)

    def clean(self, texts: Sequence[str]) -> list[CleanedText | Failure]:
        """Clean section texts; a text fails as a whole if one of its sentences does."""
        text_places = [sentence_places(text) for text in texts]
        answers = self.answers([place.unit for places in text_places for place in places])
        results: list[CleanedText | Failure] = []
        new_phrases: dict[str, str] = {}
        for text, places in zip(texts, text_places, strict=True):
            said = [
                answer
                if isinstance(answer := answers[place.unit], Failure)
                else SentenceAnnotation(*answer)
                for place in places
            ]
            cleaned = cleaned_text(
                text, places, [a if isinstance(a, Failure) else a.text for a in said]
            )
            results.append(cleaned)
            if isinstance(cleaned, CleanedText):
                annotations = [a for a in said if isinstance(a, SentenceAnnotation)]
                new_phrases[digest(cleaned.text)] = self._phrases(text, places, annotations)
        self._phrase_cache.put(new_phrases)
        return results

    def _phrases(
        self, text: str, places: Sequence[SentencePlace], annotations: Sequence[SentenceAnnotation]
    ) -> str:
        """The phrases of the cleaned text, as JSON for the cache."""
        new = [
            p.unit.sentence if a.text is None else a.text
            for p, a in zip(places, annotations, strict=True)
        ]
        cleaned, starts = rejoin(text, places, new)
        found: list[_AssertedPhrase] = []
        rejected: list[tuple[str, str]] = []
        for start, sentence, annotation in zip(starts, new, annotations, strict=True):
            place = SentencePlace(start, start + len(sentence), Unit(sentence))
            proposals = [Proposal(words, target) for words, target, _ in annotation.phrases]
            for phrase, i in self._builder.build(cleaned, place, proposals):
                if isinstance(phrase, Failure):
                    rejected.append((phrase.reason, phrase.detail))
                else:
                    assertion = annotation.phrases[i][2]
                    found.append(
                        _AssertedPhrase(
                            phrase.start, phrase.end, phrase.target, assertion, phrase.match
                        )
                    )
        return json.dumps([found, rejected], ensure_ascii=False)


class JointExtractor:
    """Gives the phrases that the joint cleaner cached; requests those that are lost."""

    def __init__(
        self, chat: ChatEngine, caches: ResponseCaches, taxonomy: Taxonomy, dataset: str
    ) -> None:
        """Shares its cache with the `JointCleaner` of the same chat engine and dataset."""
        self._fingerprint = JointStep(chat, dataset, taxonomy).fingerprint
        self._fallback = SpansExtractor(chat, caches, taxonomy, dataset)
        self._builder = PhraseBuilder(taxonomy)
        self._phrase_cache = _shared_phrase_cache(caches, self._fingerprint)

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the joint cleaner, and the prompt of the fallback."""
        return {**self._fingerprint, "otherwise": self._fallback.fingerprint["prompt"]}

    @property
    def concurrency(self) -> int | None:
        """That of the fallback, which sends the requests."""
        return self._fallback.concurrency

    def extract(self, texts: Sequence[str]) -> list[list[Phrase | Failure] | Failure]:
        """Phrases of each cleaned text, and the rejected proposals."""
        self._phrase_cache.refresh()
        known = {text: self._phrase_cache.get(digest(text)) for text in texts}
        lost = [text for text, answer in known.items() if answer is None]
        asked = dict(zip(lost, self._fallback.extract(lost), strict=True))
        return [
            asked[text] if (answer := known[text]) is None else self._cached(text, answer)
            for text in texts
        ]

    def _cached(self, text: str, answer: str) -> list[Phrase | Failure]:
        found, rejected = json.loads(answer)
        places = sentence_places(text)
        phrases: list[Phrase | Failure] = []
        for start, end, target, _, match in found:
            place = next(p for p in reversed(places) if p.start <= start)
            sentence = text[place.start : place.end]
            said = self._builder.modifiers(sentence, start - place.start, end - place.start, target)
            phrases.append(Phrase(start, end, target, said, match))
        return phrases + [Failure(*failure) for failure in rejected]


class JointFilter:
    """Gives the assertions that the joint cleaner cached; requests those that are lost."""

    def __init__(
        self, chat: ChatEngine, caches: ResponseCaches, taxonomy: Taxonomy, dataset: str
    ) -> None:
        """Shares its cache with the `JointCleaner` of the same chat engine and dataset."""
        self._fingerprint = JointStep(chat, dataset, taxonomy).fingerprint
        self._fallback = SpansFilter(chat, caches, dataset)
        self._phrase_cache = _shared_phrase_cache(caches, self._fingerprint)

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the joint cleaner, and the prompt of the fallback."""
        return {**self._fingerprint, "otherwise": self._fallback.fingerprint["prompt"]}

    @property
    def concurrency(self) -> int | None:
        """That of the fallback, which sends the requests."""
        return self._fallback.concurrency

    def classify(
        self, texts: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Assertion | Failure]]:
        """One assertion per phrase, order kept."""
        self._phrase_cache.refresh()
        said = [self._cached(text) for text in texts]
        lost = [
            [phrase for phrase in own if _key(phrase) not in known]
            for own, known in zip(phrases, said, strict=True)
        ]
        asked = self._fallback.classify(texts, lost)
        for known, own, answers in zip(said, lost, asked, strict=True):
            known.update(zip(map(_key, own), answers, strict=True))
        return [
            [known[_key(phrase)] for phrase in own]
            for own, known in zip(phrases, said, strict=True)
        ]

    def _cached(self, text: str) -> dict[tuple[int, int, str], Assertion | Failure]:
        found, _ = json.loads(self._phrase_cache.get(digest(text)) or "[[], []]")
        return {(start, end, target): assertion for start, end, target, assertion, _ in found}


def _shared_phrase_cache(caches: ResponseCaches, owner: Fingerprint) -> ResponseCache:
    # `holds` is part of the owner's digest: another value would lose the answers of old stores.
    return caches.for_owner({**owner, "holds": "phrases of cleaned texts"})


def _key(phrase: Phrase) -> tuple[int, int, str]:
    return phrase.start, phrase.end, phrase.target
