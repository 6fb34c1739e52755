"""The `spans` protocol: the model answers with changes and spans, not with the whole report.

Sentences are numbered and the answer is JSON under a schema, with entries only for sentences
that need one: cleaning says which to drop and how to rewrite, extraction gives words and their
targets. A sentence that can be understood by itself is requested once over all reports.
`tasks.engines.llm.protocols.spans_filter` has the third step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from storage.records import Phrase
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest
from tasks.engines.llm.prompts.prompting import load_prompt, numbered, protocol_fingerprint
from tasks.engines.llm.protocols.alignment import Proposal
from tasks.engines.llm.protocols.batched_requests import MALFORMED, UNITS_PER_REQUEST
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
from tasks.engines.llm.protocols.names import SAME, TargetNames
from tasks.engines.llm.protocols.phrases import PhraseBuilder
from tasks.engines.llm.protocols.rewriting import has_leftovers
from tasks.engines.llm.protocols.step_engine import ProtocolSetup, StepEngine
from tasks.engines.llm.protocols.units import (
    SentencePlace,
    Unit,
    normalize_spaces,
    rejoin,
    sentence_places,
)
from tasks.engines.metering import consume
from tasks.engines.protocols import CleanedText, Failure
from taxonomy.targets import Taxonomy

VERSION = "2"

P = TypeVar("P", bound=tuple[str, ...])

MOST_PHRASES = 32
"""Phrases of a sentence that the schema allows; the fullest of OpenI has 8. It ends the answer of
a model that repeats itself."""


class Rewrite(BaseModel):
    """A sentence's new text."""

    model_config = ConfigDict(extra="forbid")

    rewrite: str


_CHANGES = TypeAdapter(dict[str, Literal["keep", "drop"] | Rewrite])
_PHRASES = TypeAdapter(dict[str, list[tuple[str, str]]])


class SentenceStep:
    """Requests answers about sentences, about three reports at a time."""

    units_per_request = UNITS_PER_REQUEST

    def payload(self, unit: Unit) -> str | dict[str, str]:
        """The sentence, with the text before it if it refers to that."""
        return unit.payload()


class CleanStep(SentenceStep):
    """Requests which sentences to drop or rewrite; "" means drop, None unchanged."""

    def __init__(self, chat: ChatEngine, dataset: str, taxonomy: Taxonomy) -> None:
        self.prompt = load_prompt("spans", "clean", dataset)
        embedded = embedded_steps(taxonomy)
        self._check = MeaningCheck(taxonomy, embedded)
        self.fingerprint = protocol_fingerprint(
            "llm-spans",
            VERSION,
            self.prompt,
            chat,
            taxonomy=taxonomy.digest("lexicon"),
            checked_by=self._check.digest,
        )

    def request(self, units: Sequence[Unit], complaint: str = "") -> ChatRequest:
        """The request about some sentences."""
        data = numbered([unit.payload() for unit in units])
        rewriting = closed_object({"rewrite": {"type": "string"}}, required=["rewrite"])
        change = {"anyOf": [{"enum": ["keep", "drop"]}, rewriting]}
        schema = numbered_object(len(units), change)
        return ChatRequest(self.prompt.messages(data, complaint), answer_bound(data), schema)

    def read(self, text: str, units: Sequence[Unit]) -> list[str | Failure | None]:
        """The new text of each sentence, if it changes."""
        changes = read_json(_CHANGES, text)
        require_numbers(changes, len(units))
        return [
            checked_change(unit, _new_text(changes.get(str(i), "keep")), self._check)
            for i, unit in enumerate(units, start=1)
        ]


def _new_text(change: Literal["keep", "drop"] | Rewrite) -> str | None:
    if isinstance(change, Rewrite):
        return change.rewrite
    return "" if change == "drop" else None


def checked_change(unit: Unit, new: str | None, check: MeaningCheck) -> str | Failure | None:
    """A sentence's new text as a model gives it, if its meaning is the sentence's; None: as it is.

    The codes of failures are those of `MeaningCheck.cleaned`.
    """
    text = None if new is None else normalize_spaces(new).strip()
    if text is None or text == unit.sentence:
        return None
    return check.cleaned(unit.sentence, text)


class SpansCleaner(StepEngine[Unit]):
    """Drops or rewrites sentences as the model says; the others are unchanged."""

    def __init__(self, setup: ProtocolSetup) -> None:
        super().__init__(CleanStep(setup.chat, setup.dataset, setup.taxonomy), setup)

    def clean(self, texts: Sequence[str]) -> list[CleanedText | Failure]:
        """Clean section texts; a text fails as a whole if one of its sentences does.

        A sentence that the model failed at fails, or is left to the embedded cleaner. Rewritten
        sentences that still compare with other images are counted as `leftovers`.
        """
        text_places = [sentence_places(text) for text in texts]
        units = [place.unit for places in text_places for place in places]
        is_asked = self.step.prompt.concerns
        answers = self.answers([unit for unit in units if is_asked(unit.sentence)])
        by_rules = {unit for unit, answer in answers.items() if self.is_left_to_rules(answer)}
        changes = answers | {unit: self._embedded.cleaned(unit.sentence) for unit in by_rules}
        return [
            cleaned_text(text, places, [changes.get(place.unit) for place in places], by_rules)
            for text, places in zip(texts, text_places, strict=True)
        ]


def cleaned_text(
    text: str,
    places: Sequence[SentencePlace],
    answers: Sequence[str | Failure | None],
    by_rules: Set[Unit],
) -> CleanedText | Failure:
    """A text after cleaning, from the new text of its sentences; None means unchanged."""
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if failures:
        return failures[0]
    new = [p.unit.sentence if a is None else str(a) for p, a in zip(places, answers, strict=True)]
    removed = [
        text[place.start : place.end]
        for place, sentence in zip(places, new, strict=True)
        if sentence != place.unit.sentence
    ]
    rewritten = (str(answer) for answer in answers if answer)
    consume(leftovers=sum(map(has_leftovers, rewritten)))
    stood_in = [text[place.start : place.end] for place in places if place.unit in by_rules]
    return CleanedText(rejoin(text, places, new)[0], tuple(removed), tuple(stood_in))


class ExtractStep(SentenceStep):
    """Requests the words that name a target, as pairs of words and target."""

    def __init__(self, chat: ChatEngine, dataset: str, taxonomy: Taxonomy) -> None:
        self._names = TargetNames(taxonomy)
        self.prompt = load_prompt("spans", "extract", dataset, {"targets": self._names.listing()})
        self.fingerprint = protocol_fingerprint(
            "llm-spans", VERSION, self.prompt, chat, taxonomy=taxonomy.digest("lexicon")
        )

    def request(self, units: Sequence[Unit], complaint: str = "") -> ChatRequest:
        """The request about some sentences."""
        data = numbered([unit.payload() for unit in units])
        phrases = bounded_tuples(*phrase_items(self._names), most=MOST_PHRASES)
        schema = numbered_object(len(units), phrases)
        return ChatRequest(self.prompt.messages(data, complaint), answer_bound(data, 4), schema)

    def read(self, text: str, units: Sequence[Unit]) -> list[list[tuple[str, str]] | Failure]:
        """The proposals for each sentence, not yet aligned with it."""
        phrases = read_json(_PHRASES, text)
        require_numbers(phrases, len(units))
        return [distinct_phrases(phrases.get(str(i), [])) for i in range(1, len(units) + 1)]


class SpansExtractor(StepEngine[Unit]):
    """Finds phrases as the model names them, each aligned with its sentence."""

    def __init__(self, setup: ProtocolSetup) -> None:
        super().__init__(ExtractStep(setup.chat, setup.dataset, setup.taxonomy), setup)
        self._builder = PhraseBuilder(setup.taxonomy)

    def extract(self, texts: Sequence[str]) -> list[list[Phrase | Failure] | Failure]:
        """Phrases of each text; a text fails as a whole if one of its sentences does.

        A sentence that the model failed at fails, or is left to the embedded extractor.
        """
        text_places = [sentence_places(text) for text in texts]
        answers = self.answers([place.unit for places in text_places for place in places])
        return [
            self._phrases(text, places, [answers[place.unit] for place in places])
            for text, places in zip(texts, text_places, strict=True)
        ]

    def _phrases(
        self, text: str, places: Sequence[SentencePlace], answers: Iterable[Any | Failure]
    ) -> list[Phrase | Failure] | Failure:
        found: list[Phrase | Failure] = []
        for place, answer in zip(places, answers, strict=True):
            if self.is_left_to_rules(answer):
                found += self._embedded.phrases(text[place.start : place.end], place.start)
                continue
            if isinstance(answer, Failure):
                return answer
            proposals = [Proposal(*pair) for pair in answer]
            found += [outcome.phrase for outcome in self._builder.build(text, place, proposals)]
        return found


def phrase_items(names: TargetNames) -> list[dict[str, Any]]:
    """JSON schemas of what a phrase is listed by: any words, and the name of a target."""
    return [{"type": "string"}, {"enum": [SAME, *names.all]}]


def distinct_phrases(listed: Iterable[P]) -> list[P] | Failure:
    """What a model lists of a sentence, each once; a failure if it says two things of the words."""
    by_words: dict[str, P] = {}
    for phrase in listed:
        if by_words.setdefault(phrase[0], phrase) != phrase:
            fault = f"“{phrase[0]}” is listed with two meanings; write “{phrase[0]}#2” for a second"
            return Failure(MALFORMED, fault)
    return list(by_words.values())
