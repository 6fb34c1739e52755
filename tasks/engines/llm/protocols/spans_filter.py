"""The filter step of the `spans` protocol: an assertion for the number of each phrase."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

from pydantic import TypeAdapter

from storage.records import Assertion, Phrase
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest
from tasks.engines.llm.prompts.prompting import load_prompt, numbered, protocol_fingerprint
from tasks.engines.llm.protocols.batched_requests import MALFORMED, UNITS_PER_REQUEST
from tasks.engines.llm.protocols.json_answers import (
    answer_bound,
    numbered_object,
    read_json,
    require_numbers,
)
from tasks.engines.llm.protocols.spans import VERSION
from tasks.engines.llm.protocols.step_engine import ProtocolSetup, StepEngine
from tasks.engines.llm.protocols.units import SentencePlace, normalize_spaces, sentence_places
from tasks.engines.protocols import Failure, PhraseAnswer, RulesAssertion

ASSERTIONS: tuple[Assertion, ...] = get_args(Assertion)


_ASSERTIONS_BY_NUMBER = TypeAdapter(dict[str, Assertion])


@dataclass(frozen=True, slots=True)
class MarkedUnit:
    """A sentence split at its phrases: text, words, text, words, …, text.

    targets: those of the words, in order; before: the text before the sentence if it needs it.
    """

    pieces: tuple[str, ...]
    targets: tuple[str, ...]
    before: str = ""

    def marked(self, first: int = 1) -> str:
        """The sentence with its phrases numbered from `first`: "No [1: mass | tumor] is seen."."""
        shown = list(self.pieces)
        for k, target in enumerate(self.targets):
            words = self.pieces[2 * k + 1]
            meant = "" if words.lower() == target.lower() else f" | {target}"
            shown[2 * k + 1] = f"[{first + k}: {words}{meant}]"
        return "".join(shown)


class FilterStep:
    """Requests one assertion per phrase."""

    units_per_request = UNITS_PER_REQUEST

    def __init__(self, chat: ChatEngine, dataset: str) -> None:
        self.prompt = load_prompt("spans", "filter", dataset)
        self.fingerprint = protocol_fingerprint("llm-spans", VERSION, self.prompt, chat)

    def payload(self, unit: MarkedUnit) -> str | dict[str, str]:
        """The sentence with its phrases marked, with the text before it if it refers to that."""
        return _shown(unit, unit.marked())

    def request(self, units: Sequence[MarkedUnit], complaint: str = "") -> ChatRequest:
        """The request about some sentences, their phrases numbered through."""
        shown, count = [], 0
        for unit in units:
            shown.append(_shown(unit, unit.marked(count + 1)))
            count += len(unit.targets)
        data = numbered(shown)
        required = [str(i) for i in range(1, count + 1)]
        schema = numbered_object(count, {"enum": list(ASSERTIONS)}, required=required)
        return ChatRequest(self.prompt.messages(data, complaint), answer_bound(data), schema)

    def read(self, text: str, units: Sequence[MarkedUnit]) -> list[list[Assertion] | Failure]:
        """The assertions of each sentence's phrases; every one must have its own."""
        said = read_json(_ASSERTIONS_BY_NUMBER, text)
        require_numbers(said, sum(len(unit.targets) for unit in units))
        answers: list[list[Assertion] | Failure] = []
        first = 1
        for unit in units:
            own = [str(i) for i in range(first, first + len(unit.targets))]
            first += len(unit.targets)
            if left_out := [number for number in own if number not in said]:
                answers.append(Failure(MALFORMED, f"phrase {left_out[0]} has no assertion"))
            else:
                answers.append([said[number] for number in own])
        return answers


class SpansFilter(StepEngine[MarkedUnit]):
    """Tells present, probable, possible and absent apart as the model says."""

    def __init__(self, setup: ProtocolSetup) -> None:
        super().__init__(FilterStep(setup.chat, setup.dataset), setup)

    def classify(
        self, texts: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[PhraseAnswer]]:
        """One assertion per phrase, order kept; if a sentence fails, its phrases do.

        The phrases of a sentence that the model failed at may be left to the embedded filter.
        """
        text_units = [
            [
                (marked_unit(text, place, [in_text[i] for i in members]), members)
                for place, members in by_sentence(text, in_text)
            ]
            for text, in_text in zip(texts, phrases, strict=True)
        ]
        answers = self.answers([unit for marked in text_units for unit, _ in marked])
        results: list[list[PhraseAnswer]] = []
        for text, in_text, marked in zip(texts, phrases, text_units, strict=True):
            by_phrase: dict[int, PhraseAnswer] = {}
            for unit, members in marked:
                answer = answers[unit]
                if self.is_left_to_rules(answer):
                    by_rules = self._embedded.assertions(text, in_text)
                    answer = [RulesAssertion(by_rules[i]) for i in members]
                said = [answer] * len(members) if isinstance(answer, Failure) else answer
                by_phrase.update(zip(members, said, strict=True))
            results.append([by_phrase[i] for i in range(len(in_text))])
        return results


def by_sentence(text: str, phrases: Sequence[Phrase]) -> list[tuple[SentencePlace, list[int]]]:
    """The sentences that hold phrases, each with the numbers of its own."""
    places = sentence_places(text)
    starts = [place.start for place in places]
    members: dict[int, list[int]] = {}
    for i, phrase in sorted(enumerate(phrases), key=lambda item: item[1].start):
        members.setdefault(max(bisect_right(starts, phrase.start) - 1, 0), []).append(i)
    return [(places[number], own) for number, own in sorted(members.items())]


def marked_unit(text: str, place: SentencePlace, phrases: Sequence[Phrase]) -> MarkedUnit:
    """What is asked about a sentence and its phrases, which are in order and do not overlap."""
    edges = [place.start, *(edge for p in phrases for edge in (p.start, p.end))]
    edges.append(max(place.end, edges[-1]))
    pieces = tuple(normalize_spaces(text[start:end]) for start, end in pairwise(edges))
    return MarkedUnit(pieces, tuple(p.target for p in phrases), place.unit.before)


def _shown(unit: MarkedUnit, marked: str) -> str | dict[str, str]:
    return {"before": unit.before, "sentence": marked} if unit.before else marked
