"""The `spans` protocol: the model answers with changes and spans, not with the whole report.

Sentences are numbered and the answer is JSON under a schema, with entries only for sentences
that need one: cleaning says which to drop and how to rewrite, extraction gives words and their
targets. A sentence that can be understood by itself is requested once over all reports.
`tasks.engines.llm.protocols.spans_filter` has the third step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from storage.records import Phrase
from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest
from tasks.engines.llm.prompts.prompting import load_prompt, numbered, protocol_fingerprint
from tasks.engines.llm.protocols.alignment import Proposal
from tasks.engines.llm.protocols.batched_requests import MALFORMED, UNITS_PER_REQUEST
from tasks.engines.llm.protocols.json_answers import (
    answer_bound,
    closed_object,
    read_json,
    require_numbers,
)
from tasks.engines.llm.protocols.names import SAME, TargetNames
from tasks.engines.llm.protocols.phrases import PhraseBuilder
from tasks.engines.llm.protocols.rewriting import has_leftovers, rewrite_fault
from tasks.engines.llm.protocols.step_engine import StepEngine
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

VERSION = "1"


class Changes(BaseModel):
    """The sentences to drop or rewrite, by number; the others are unchanged."""

    model_config = ConfigDict(extra="forbid")

    drop: list[int] = []
    rewrite: dict[str, str] = {}


_CHANGES = TypeAdapter(Changes)
_PHRASES = TypeAdapter(dict[str, dict[str, str]])


class SentenceStep:
    """Requests answers about sentences, about three reports at a time."""

    units_per_request = UNITS_PER_REQUEST

    def payload(self, unit: Unit) -> str | dict[str, str]:
        """The sentence, with the text before it if it refers to that."""
        return unit.payload()


class CleanStep(SentenceStep):
    """Requests which sentences to drop or rewrite; "" means drop, None unchanged."""

    def __init__(self, chat: ChatEngine, dataset: str, names: TargetNames) -> None:
        self.prompt = load_prompt("spans", "clean", dataset)
        self._names = names
        self.fingerprint = protocol_fingerprint("llm-spans", VERSION, self.prompt, chat)

    def request(self, units: Sequence[Unit], complaint: str = "") -> ChatRequest:
        """The request about some sentences."""
        data = numbered([unit.payload() for unit in units])
        schema = closed_object(changes_schema(len(units)))
        return ChatRequest(self.prompt.messages(data, complaint), answer_bound(data), schema)

    def read(self, text: str, units: Sequence[Unit]) -> list[str | Failure | None]:
        """The new text of each sentence, if it changes."""
        return read_changes(read_json(_CHANGES, text), units, self._names)

    def needs_asking(self, unit: Unit) -> bool:
        """Whether the prompt's trigger words, if it has any, occur in the sentence."""
        words = self.prompt.only_if
        return not words or any(word in unit.sentence.lower() for word in words)


def changes_schema(count: int) -> dict[str, Any]:
    """JSON schema of the changes to `count` sentences."""
    numbers = list(range(1, count + 1))
    drop = {"type": "array", "items": {"enum": numbers}, "maxItems": count}
    return {"drop": drop, "rewrite": closed_object({str(i): {"type": "string"} for i in numbers})}


def read_changes(
    changes: Changes, units: Sequence[Unit], names: TargetNames
) -> list[str | Failure | None]:
    """The new text of each sentence; "" means drop, None unchanged.

    Raises:
        AnswerError: if the changes name other sentences.
    """
    require_numbers(dict.fromkeys(map(str, changes.drop)), len(units))
    require_numbers(changes.rewrite, len(units))
    return [
        _change(unit, i in changes.drop, changes.rewrite.get(str(i)), names)
        for i, unit in enumerate(units, start=1)
    ]


def _change(
    unit: Unit, is_dropped: bool, rewritten: str | None, names: TargetNames
) -> str | Failure | None:
    if is_dropped:
        both = Failure(MALFORMED, f"“{unit.sentence}” is both dropped and rewritten")
        return "" if rewritten is None else both
    if rewritten is None or rewritten == unit.sentence:
        return None
    return rewrite_fault(unit.sentence, rewritten, names) or normalize_spaces(rewritten).strip()


class SpansCleaner(StepEngine[Unit]):
    """Drops or rewrites sentences as the model says; the others are unchanged."""

    def __init__(
        self, chat: ChatEngine, caches: ResponseCaches, taxonomy: Taxonomy, dataset: str
    ) -> None:
        """Requests through `chat` what `caches` lack, with the prompts of a dataset."""
        step = CleanStep(chat, dataset, TargetNames(taxonomy))
        super().__init__(step, chat, caches)
        self._needs_asking = step.needs_asking

    def clean(self, texts: Sequence[str]) -> list[CleanedText | Failure]:
        """Clean section texts; a text fails as a whole if one of its sentences does.

        Rewritten sentences that still compare with other images are counted as `leftovers`.
        """
        text_places = [sentence_places(text) for text in texts]
        units = [place.unit for places in text_places for place in places]
        answers = self.answers([unit for unit in units if self._needs_asking(unit)])
        return [
            cleaned_text(text, places, [answers.get(place.unit) for place in places])
            for text, places in zip(texts, text_places, strict=True)
        ]


def cleaned_text(
    text: str, places: Sequence[SentencePlace], answers: Sequence[str | Failure | None]
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
    return CleanedText(rejoin(text, places, new)[0], tuple(removed))


class ExtractStep(SentenceStep):
    """Requests the words that name a target, as pairs of words and target."""

    def __init__(self, chat: ChatEngine, dataset: str, names: TargetNames, taxonomy: str) -> None:
        self.prompt = load_prompt("spans", "extract", dataset, {"targets": names.listing()})
        self._names = names
        self.fingerprint = protocol_fingerprint(
            "llm-spans", VERSION, self.prompt, chat, taxonomy=taxonomy
        )

    def request(self, units: Sequence[Unit], complaint: str = "") -> ChatRequest:
        """The request about some sentences."""
        data = numbered([unit.payload() for unit in units])
        schema = closed_object(
            {str(i): {"$ref": "#/$defs/phrases"} for i in range(1, len(units) + 1)},
            **{"$defs": {"phrases": phrases_schema(self._names)}},
        )
        return ChatRequest(self.prompt.messages(data, complaint), answer_bound(data), schema)

    def read(self, text: str, units: Sequence[Unit]) -> list[list[list[str]] | Failure]:
        """The proposals for each sentence, not yet aligned with it."""
        phrases = read_json(_PHRASES, text)
        require_numbers(phrases, len(units))
        return [
            [list(pair) for pair in phrases.get(str(i), {}).items()]
            for i in range(1, len(units) + 1)
        ]


class SpansExtractor(StepEngine[Unit]):
    """Finds phrases as the model names them, each aligned with its sentence."""

    def __init__(
        self, chat: ChatEngine, caches: ResponseCaches, taxonomy: Taxonomy, dataset: str
    ) -> None:
        """Requests through `chat` what `caches` lack, with the prompts of a dataset."""
        names = TargetNames(taxonomy)
        step = ExtractStep(chat, dataset, names, taxonomy.digest("lexicon"))
        super().__init__(step, chat, caches)
        self._builder = PhraseBuilder(taxonomy)

    def extract(self, texts: Sequence[str]) -> list[list[Phrase | Failure] | Failure]:
        """Phrases of each text; a text fails as a whole if one of its sentences does."""
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
            if isinstance(answer, Failure):
                return answer
            proposals = [Proposal(*pair) for pair in answer]
            found += [outcome.phrase for outcome in self._builder.build(text, place, proposals)]
        return found


def phrases_schema(names: TargetNames) -> dict[str, Any]:
    """JSON schema of phrases: any words, each with the name of a target."""
    return {"type": "object", "additionalProperties": {"enum": [SAME, *names.all]}}
