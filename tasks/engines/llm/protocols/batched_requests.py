"""Asks a model about many things at once, and takes no for no answer only after some tries.

Several units share a request, which saves the prompt in front of them. What cannot be used of an
answer is asked again unit by unit, the fault told to the model, a bounded number of times; then
it is a failure with its reason: never dropped, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from tasks.engines.llm.cache.response_cache import AnswerMemory, RememberingEngine, digest
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest, Completion
from tasks.engines.metering import consume
from tasks.engines.protocols import Failure

ATTEMPTS = 3
UNITS_PER_REQUEST = 16
"""What protocols that ask about sentences use: about three reports."""

CHARACTERS_PER_REQUEST = 2000

MALFORMED = "answer_malformed"

U = TypeVar("U", bound=Hashable)
U_contra = TypeVar("U_contra", bound=Hashable, contravariant=True)


class AnswerError(Exception):
    """An answer that cannot be read at all; the message is told to the model."""


class Step(Protocol[U_contra]):
    """How to ask about units, and how to read what comes back."""

    @property
    def units_per_request(self) -> int:
        """How many units may share a request."""
        ...

    def payload(self, unit: U_contra) -> Any:
        """The unit as JSON value: what identifies it, and what the model is shown of it."""
        ...

    def request(self, units: Sequence[U_contra], complaint: str = "") -> ChatRequest:
        """The request about some units; a complaint says what was wrong with an earlier answer."""
        ...

    def read(self, text: str, units: Sequence[U_contra]) -> Sequence[Any | Failure]:
        """One JSON value per unit, or why its part of the answer cannot be used.

        Raises:
            AnswerError: if the answer as a whole cannot be read.
        """
        ...


def ask(
    chat: ChatEngine, memory: AnswerMemory, step: Step[U], units: Sequence[U]
) -> list[Any | Failure]:
    """One answer per unit, order kept; equal units are asked about once, in all runs.

    Units are counted as `units`, distinct ones that the memory answered as `units_remembered`,
    those that a model was asked about as `units_asked`.
    """
    keys = [digest(step.payload(unit)) for unit in units]
    by_key = dict(zip(keys, units, strict=True))
    failures: dict[str, Failure] = {}
    asked: set[str] = set()

    def put(chunk: Sequence[str]) -> dict[str, str]:
        answers = _with_retries(chat, step, [by_key[key] for key in chunk])
        failures.update(
            (k, a) for k, a in zip(chunk, answers, strict=True) if isinstance(a, Failure)
        )
        asked.update(chunk)
        consume(units_asked=len(chunk))
        return {
            key: json.dumps(answer, ensure_ascii=False)
            for key, answer in zip(chunk, answers, strict=True)
            if not isinstance(answer, Failure)
        }

    known = memory.recall_or_ask(keys, put, first=16 * step.units_per_request)
    consume(units=len(units), units_remembered=len(by_key) - len(asked))
    return [json.loads(known[key]) if key in known else failures[key] for key in keys]


def _with_retries(chat: ChatEngine, step: Step[U], units: Sequence[U]) -> list[Any | Failure]:
    """Ask until every answer is of use or was asked for often enough.

    An answer of which a part was asked again has served its time: what it said of the other units
    is remembered by itself, and remembered as a whole it would only keep its fault. It goes last,
    so that a run killed on the way has paid for nothing twice.
    """
    outcomes: dict[int, Any | Failure] = {}
    complaints: dict[int, str] = {}
    useless: list[ChatRequest] = []
    batches = list(_packed(step, units))
    for attempt in range(ATTEMPTS):
        if attempt:
            consume(units_asked_again=len(batches))
        again = _attempt(chat, step, units, batches, complaints, outcomes, useless)
        if not again:
            break
        batches = [[i] for i in again]
        for i in again:
            if (fault := outcomes[i]).reason != "prompt_too_long":
                # All faults so far: the words that were in vain before would be so again.
                before = f"{complaints[i]}; then: " if i in complaints else ""
                complaints[i] = before + fault.detail
    if isinstance(chat, RememberingEngine):
        chat.forget(useless)
    return [outcomes[i] for i in range(len(units))]


def _attempt(
    chat: ChatEngine,
    step: Step[U],
    units: Sequence[U],
    batches: Sequence[Sequence[int]],
    complaints: Mapping[int, str],
    outcomes: dict[int, Any | Failure],
    useless: list[ChatRequest],
) -> list[int]:
    """Ask once, note what came of each unit and which requests failed at any, and give the rest.

    Returns:
        the numbers of the units to be asked about again.
    """
    asked = [[units[i] for i in batch] for batch in batches]
    requests = [
        step.request(about, complaints.get(batch[0], ""))
        for about, batch in zip(asked, batches, strict=True)
    ]
    again: list[int] = []
    completions = chat.complete(requests)
    for batch, about, request, completion in zip(
        batches, asked, requests, completions, strict=True
    ):
        answers, is_final = _read(step, about, completion)
        outcomes.update(zip(batch, answers, strict=True))
        failed = [] if is_final else [i for i in batch if isinstance(outcomes[i], Failure)]
        again += failed
        if failed and isinstance(completion, Completion):
            useless.append(request)
    return again


def _read(
    step: Step[U], units: Sequence[U], completion: Completion | Failure
) -> tuple[Sequence[Any | Failure], bool]:
    """What a completion says of each unit, and whether asking again is in vain."""
    if isinstance(completion, Failure):
        # The engine has done its own retries; only a request that was too long can be cut up.
        return [completion] * len(units), completion.reason != "prompt_too_long" or len(units) == 1
    if completion.finish_reason == "length":
        fault = Failure(MALFORMED, "the answer was cut: it was longer than it may be")
        return [fault] * len(units), False
    try:
        return step.read(completion.text, units), False
    except AnswerError as error:
        return [Failure(MALFORMED, str(error))] * len(units), False


def _packed(step: Step[U], units: Sequence[U]) -> Iterator[list[int]]:
    """Numbers of the units that share a request."""
    batch: list[int] = []
    characters = 0
    for i, unit in enumerate(units):
        size = len(json.dumps(step.payload(unit), ensure_ascii=False))
        full = len(batch) == step.units_per_request or characters + size > CHARACTERS_PER_REQUEST
        if batch and full:
            yield batch
            batch, characters = [], 0
        batch.append(i)
        characters += size
    if batch:
        yield batch
