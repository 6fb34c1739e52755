"""The `spans` protocol: the model names what it sees instead of writing the report out again.

Sentences are numbered and the answer is JSON under a schema, with an entry only for sentences
that need one: cleaning says which to drop and how to rewrite, extraction gives the words and their
target. Sentences that mean the same wherever they stand are asked about once.
`tasks.engines.llm.protocols.spans_filter` has the third step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from storage.records import Phrase
from tasks.engines.llm.cache.response_cache import Memories
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
from tasks.engines.llm.protocols.units import Place, Unit, level_spaces, places_of, rejoin
from tasks.engines.metering import consume
from tasks.engines.protocols import CleanedText, Failure
from taxonomy.targets import Taxonomy

VERSION = "1"


class Changes(BaseModel):
    """What is to become of numbered sentences; the others stay as they are."""

    model_config = ConfigDict(extra="forbid")

    drop: list[int] = []
    rewrite: dict[str, str] = {}


_CHANGES = TypeAdapter(Changes)
_PHRASES = TypeAdapter(dict[str, dict[str, str]])


class SentenceStep:
    """Asks about sentences, as many at a time as three reports have."""

    units_per_request = UNITS_PER_REQUEST

    def payload(self, unit: Unit) -> str | dict[str, str]:
        """The sentence, with what stands before it if it needs that."""
        return unit.payload()


class CleanStep(SentenceStep):
    """Asks which sentences to drop or rewrite; answers "" for drop, None for leave as it is."""

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
    """JSON schema of the changes to as many sentences."""
    numbers = list(range(1, count + 1))
    drop = {"type": "array", "items": {"enum": numbers}, "maxItems": count}
    return {"drop": drop, "rewrite": closed_object({str(i): {"type": "string"} for i in numbers})}


def read_changes(
    changes: Changes, units: Sequence[Unit], names: TargetNames
) -> list[str | Failure | None]:
    """The new text of each sentence: "" for drop, None for leave as it is.

    Raises:
        AnswerError: if the changes speak of other sentences.
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
    return rewrite_fault(unit.sentence, rewritten, names) or level_spaces(rewritten).strip()


class SpansCleaner(StepEngine[Unit]):
    """Drops or rewrites sentences as the model says; the others keep their own words."""

    def __init__(
        self, chat: ChatEngine, memories: Memories, taxonomy: Taxonomy, dataset: str
    ) -> None:
        """Asks through `chat` what the memories do not hold, with the prompts of a dataset."""
        step = CleanStep(chat, dataset, TargetNames(taxonomy))
        super().__init__(step, chat, memories)
        self._needs_asking = step.needs_asking

    def clean(self, texts: Sequence[str]) -> list[CleanedText | Failure]:
        """Clean section texts; one with a sentence that could not be done fails whole.

        Rewritten sentences that still compare with other images are counted as `leftovers`.
        """
        of_texts = [places_of(text) for text in texts]
        units = [place.unit for places in of_texts for place in places]
        answers = self.answers([unit for unit in units if self._needs_asking(unit)])
        return [
            cleaned_text(text, places, [answers.get(place.unit) for place in places])
            for text, places in zip(texts, of_texts, strict=True)
        ]


def cleaned_text(
    text: str, places: Sequence[Place], answers: Sequence[str | Failure | None]
) -> CleanedText | Failure:
    """A text after cleaning, from what is to become of its sentences; None leaves one as it is."""
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
    """Asks for the words that name a target; answers pairs of words and target."""

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
        """The proposals about each sentence, not yet held against it."""
        phrases = read_json(_PHRASES, text)
        require_numbers(phrases, len(units))
        return [
            [list(pair) for pair in phrases.get(str(i), {}).items()]
            for i in range(1, len(units) + 1)
        ]


class SpansExtractor(StepEngine[Unit]):
    """Finds phrases as the model names them, each held against its sentence."""

    def __init__(
        self, chat: ChatEngine, memories: Memories, taxonomy: Taxonomy, dataset: str
    ) -> None:
        """Asks through `chat` what the memories do not hold, with the prompts of a dataset."""
        names = TargetNames(taxonomy)
        step = ExtractStep(chat, dataset, names, taxonomy.digest("lexicon"))
        super().__init__(step, chat, memories)
        self._builder = PhraseBuilder(taxonomy)

    def extract(self, texts: Sequence[str]) -> list[list[Phrase | Failure] | Failure]:
        """Phrases of each text; one with a sentence that could not be done fails whole."""
        of_texts = [places_of(text) for text in texts]
        answers = self.answers([place.unit for places in of_texts for place in places])
        return [
            self._phrases(text, places, [answers[place.unit] for place in places])
            for text, places in zip(texts, of_texts, strict=True)
        ]

    def _phrases(
        self, text: str, places: Sequence[Place], answers: Iterable[Any | Failure]
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
