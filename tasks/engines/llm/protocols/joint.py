"""The `joint` protocol: one request for cleaning, extraction and assertion.

There are still three steps: the cleaner sends the requests and caches the phrases of the answers
under the cleaned text, where the extractor and the filter find them. If that cache is lost, or
lacks a phrase, they fall back to the `spans` protocol.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import starmap
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from storage.records import Assertion, Match, Phrase
from tasks.engines.llm.cache.response_cache import ResponseCache
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest
from tasks.engines.llm.digest import digest
from tasks.engines.llm.prompts.prompting import load_prompt, numbered, protocol_fingerprint
from tasks.engines.llm.protocols.alignment import Proposal
from tasks.engines.llm.protocols.batched_requests import MALFORMED
from tasks.engines.llm.protocols.embedded import embedded_steps
from tasks.engines.llm.protocols.json_answers import (
    answer_bound,
    bounded_tuples,
    closed_object,
    numbered_object,
    read_json,
    require_numbers,
)
from tasks.engines.llm.protocols.meaning import MeaningCheck
from tasks.engines.llm.protocols.names import TargetNames
from tasks.engines.llm.protocols.phrases import PhraseBuilder
from tasks.engines.llm.protocols.spans import (
    MOST_PHRASES,
    SentenceStep,
    SpansExtractor,
    checked_change,
    cleaned_text,
    distinct_phrases,
    phrase_items,
)
from tasks.engines.llm.protocols.spans_filter import ASSERTIONS, SpansFilter
from tasks.engines.llm.protocols.step_engine import (
    ProtocolSetup,
    StepEngine,
    engine_fingerprint,
)
from tasks.engines.llm.protocols.units import SentencePlace, Unit, rejoin, sentence_places
from tasks.engines.protocols import (
    CleanedText,
    Failure,
    Fingerprint,
    PhraseAnswer,
    RulesAssertion,
)
from taxonomy.targets import Taxonomy

VERSION = "2"
NAME = "llm-joint"

E = TypeVar("E", bound=StepEngine[Any])


class _Entry(BaseModel):
    """What is said of a sentence that changes: its new text, and the phrases of that."""

    model_config = ConfigDict(extra="forbid")

    rewrite: str
    phrases: list[tuple[str, str, Assertion]] = []


_Said = Literal["keep", "drop"] | list[tuple[str, str, Assertion]] | _Entry
_ANSWER = TypeAdapter(dict[str, _Said])


class SentenceAnnotation(NamedTuple):
    """What one answer says of a sentence: its new text as in `CleanStep`, and its phrases.

    phrases: words, target, assertion; None where the embedded steps find them.
    """

    text: str | None
    phrases: Sequence[tuple[str, str, Assertion]] | None


class _AssertedPhrase(NamedTuple):
    """A phrase of a cleaned text, code points, and what is said of it."""

    start: int
    end: int
    target: str
    assertion: Assertion
    match: Match
    by_rules: bool = False  # not in the caches of older stores


class JointStep(SentenceStep):
    """Asks for everything about some sentences at once; answers annotations."""

    def __init__(self, chat: ChatEngine, dataset: str, taxonomy: Taxonomy) -> None:
        self._names = TargetNames(taxonomy)
        embedded = embedded_steps(taxonomy)
        self._check = MeaningCheck(taxonomy, embedded)
        self.prompt = load_prompt("joint", "annotate", dataset, {"targets": self._names.listing()})
        self.fingerprint = protocol_fingerprint(
            NAME,
            VERSION,
            self.prompt,
            chat,
            taxonomy=taxonomy.digest("lexicon"),
            checked_by=self._check.digest,
        )

    def request(self, units: Sequence[Unit], complaint: str = "") -> ChatRequest:
        """The request about some sentences."""
        data = numbered([unit.payload() for unit in units])
        items = [*phrase_items(self._names), {"enum": list(ASSERTIONS)}]
        phrases = bounded_tuples(*items, most=MOST_PHRASES)
        entry = closed_object(
            {"rewrite": {"type": "string"}, "phrases": phrases}, required=["rewrite"]
        )
        said = {"anyOf": [{"enum": ["keep", "drop"]}, phrases, entry]}
        schema = numbered_object(len(units), said)
        return ChatRequest(self.prompt.messages(data, complaint), answer_bound(data, 6), schema)

    def read(self, text: str, units: Sequence[Unit]) -> list[SentenceAnnotation | Failure]:
        """What is said of each sentence; the proposals are not yet aligned with it."""
        entries = read_json(_ANSWER, text)
        require_numbers(entries, len(units))
        return [
            self._annotation(unit, entries.get(str(i), "keep"))
            for i, unit in enumerate(units, start=1)
        ]

    def _annotation(self, unit: Unit, said: _Said) -> SentenceAnnotation | Failure:
        new = said.rewrite if isinstance(said, _Entry) else "" if said == "drop" else None
        listed = said.phrases if isinstance(said, _Entry) else []
        text = checked_change(unit, new, self._check)
        phrases = distinct_phrases(said if isinstance(said, list) else listed)
        if isinstance(text, Failure):
            return text
        if isinstance(phrases, Failure):
            return phrases
        if text == "" and phrases:
            return Failure(MALFORMED, f"the sentence is dropped, yet it has “{phrases[0][0]}”")
        return SentenceAnnotation(text, phrases)


class JointCleaner(StepEngine[Unit]):
    """Cleans as the model says, and caches the phrases of its answers."""

    def __init__(self, setup: ProtocolSetup) -> None:
        super().__init__(_step(setup), setup)
        self._builder = PhraseBuilder(setup.taxonomy)
        self._phrase_cache = _shared_phrase_cache(setup, self.fingerprint)

    def clean(self, texts: Sequence[str]) -> list[CleanedText | Failure]:
        """Clean section texts; a text fails as a whole if one of its sentences does.

        A sentence that the model failed at fails, or all its steps are left to the embedded ones.
        """
        text_places = [sentence_places(text) for text in texts]
        answers = self.answers([place.unit for places in text_places for place in places])
        by_rules = {unit for unit, answer in answers.items() if self.is_left_to_rules(answer)}
        results: list[CleanedText | Failure] = []
        new_phrases: dict[str, str] = {}
        for text, places in zip(texts, text_places, strict=True):
            said = [self._annotation(place.unit, answers[place.unit]) for place in places]
            new = [a if isinstance(a, Failure) else a.text for a in said]
            cleaned = cleaned_text(text, places, new, by_rules)
            results.append(cleaned)
            if isinstance(cleaned, CleanedText):
                annotations = [a for a in said if isinstance(a, SentenceAnnotation)]
                new_phrases[digest(cleaned.text)] = self._phrases(text, places, annotations)
        self._phrase_cache.put(new_phrases)
        return results

    def _annotation(self, unit: Unit, answer: Any | Failure) -> SentenceAnnotation | Failure:
        """A cached or new answer, or what the embedded steps say in its place."""
        if not isinstance(answer, Failure):
            return SentenceAnnotation(*answer)
        if not self.is_left_to_rules(answer):
            return answer
        text = self._embedded.cleaned(unit.sentence)
        return text if isinstance(text, Failure) else SentenceAnnotation(text, None)

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
            if annotation.phrases is None:
                found += self._embedded_phrases(sentence, start)
                continue
            proposals = [Proposal(words, target) for words, target, _ in annotation.phrases]
            for phrase, i in self._builder.build(cleaned, place, proposals):
                if isinstance(phrase, Failure):
                    rejected.append((phrase.reason, phrase.detail))
                else:
                    found.append(_asserted(phrase, annotation.phrases[i][2]))
        return json.dumps([found, rejected], ensure_ascii=False)

    def _embedded_phrases(self, sentence: str, start: int) -> list[_AssertedPhrase]:
        phrases = self._embedded.phrases(sentence)
        said = self._embedded.assertions(sentence, phrases)
        return [
            _asserted(replace(p, start=start + p.start, end=start + p.end), assertion)
            for p, assertion in zip(phrases, said, strict=True)
        ]


class _AfterCleaner(Generic[E]):
    """A step after the joint cleaner: gives what that one cached, and requests what is lost.

    Shares its cache with the `JointCleaner` of the same setup; `fallback` sends the requests.
    """

    def __init__(self, setup: ProtocolSetup, fallback: E) -> None:
        self._fallback = fallback
        self._cleaner_fingerprint = engine_fingerprint(_step(setup).fingerprint, setup)
        self._phrase_cache = _shared_phrase_cache(setup, self._cleaner_fingerprint)

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the joint cleaner, and the prompt of the fallback."""
        return {**self._cleaner_fingerprint, "otherwise": self._fallback.fingerprint["prompt"]}

    @property
    def concurrency(self) -> int | None:
        """That of the fallback, which sends the requests."""
        return self._fallback.concurrency


class JointExtractor(_AfterCleaner[SpansExtractor]):
    """Gives the phrases that the joint cleaner cached."""

    def __init__(self, setup: ProtocolSetup) -> None:
        super().__init__(setup, SpansExtractor(setup))
        self._builder = PhraseBuilder(setup.taxonomy)

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
        for start, end, target, _, match, by_rules in starmap(_AssertedPhrase, found):
            place = next(p for p in reversed(places) if p.start <= start)
            sentence = text[place.start : place.end]
            said = self._builder.modifiers(sentence, start - place.start, end - place.start, target)
            phrases.append(Phrase(start, end, target, said, match, by_rules))
        return phrases + [Failure(*failure) for failure in rejected]


class JointFilter(_AfterCleaner[SpansFilter]):
    """Gives the assertions that the joint cleaner cached."""

    def __init__(self, setup: ProtocolSetup) -> None:
        super().__init__(setup, SpansFilter(setup))

    def classify(
        self, texts: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[PhraseAnswer]]:
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

    def _cached(self, text: str) -> dict[tuple[int, int, str], PhraseAnswer]:
        found, _ = json.loads(self._phrase_cache.get(digest(text)) or "[[], []]")
        return {
            (p.start, p.end, p.target): RulesAssertion(p.assertion) if p.by_rules else p.assertion
            for p in starmap(_AssertedPhrase, found)
        }


def _step(setup: ProtocolSetup) -> JointStep:
    return JointStep(setup.chat, setup.dataset, setup.taxonomy)


def _asserted(phrase: Phrase, assertion: Assertion) -> _AssertedPhrase:
    place = phrase.start, phrase.end, phrase.target
    return _AssertedPhrase(*place, assertion, phrase.match, phrase.by_rules)


def _shared_phrase_cache(setup: ProtocolSetup, owner: Fingerprint) -> ResponseCache:
    # `holds` is part of the owner's digest: another value would lose the answers of old stores.
    return setup.caches.for_owner({**owner, "holds": "phrases of cleaned texts"})


def _key(phrase: Phrase) -> tuple[int, int, str]:
    return phrase.start, phrase.end, phrase.target
