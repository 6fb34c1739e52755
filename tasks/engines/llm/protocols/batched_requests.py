"""Batched requests: several units share a request; invalid answers are retried one at a time.

Sharing a request saves the prompt in front of each unit. A unit without a valid answer is retried
alone, with the fault described to the model, a bounded number of times. After that it is a failure
with its reason; it is never dropped or guessed.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from storage.reasons import may_succeed_later
from tasks.engines.llm.cache.response_cache import CachedEngine, ResponseCache
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest, Completion
from tasks.engines.llm.digest import digest
from tasks.engines.llm.protocols.trial import ModelTrial
from tasks.engines.metering import consume
from tasks.engines.protocols import Failure

ATTEMPTS = 3
"""Requests about a unit, the first included; a model that fails three times fails on."""

UNITS_PER_REQUEST = 16
"""Sentences; those of about three reports. The prompt is then a small part of the tokens."""

CHARACTERS_PER_REQUEST = 2000
"""Of all units together; long sentences share a request with fewer others."""

_REQUESTS_IN_FIRST_CHUNK = 16
"""Requests that are stored together at first; see `ResponseCache.get_or_request`."""

_FAILED = "failed:"
"""Before the key of a unit: what the cache keeps of a model that failed at it."""

MALFORMED = "answer_malformed"

DOUBTED = "drop_doubted"
"""The code of a valid answer that is hard to believe: asked about once more, then not believed."""

U = TypeVar("U", bound=Hashable)
U_contra = TypeVar("U_contra", bound=Hashable, contravariant=True)


class AnswerError(Exception):
    """An answer that cannot be read at all; the message is sent to the model."""


class RequestStep(Protocol[U_contra]):
    """How a step requests answers about its units, and how it reads them."""

    @property
    def units_per_request(self) -> int:
        """How many units may share a request."""
        ...

    def payload(self, unit: U_contra) -> Any:
        """The unit as a JSON value: it identifies the unit, and is what the model sees of it."""
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


def request_answers(
    chat: ChatEngine,
    cache: ResponseCache,
    step: RequestStep[U],
    units: Sequence[U],
    trial: ModelTrial | None = None,
) -> list[Any | Failure]:
    """One answer per unit, order kept; equal units are requested once, over all runs.

    Counted are all `units`, the distinct ones answered from the cache as `units_cached`, and those
    that a model was asked about as `units_asked`.

    Where the cache keeps failures, a unit that the model failed at finally is not asked about
    again: answers from batch files are what they are.

    Raises:
        EngineError: if no request can be answered, or `trial` finds that nearly no answer is of
            use.
    """
    keys = [digest(step.payload(unit)) for unit in units]
    by_key = dict(zip(keys, units, strict=True))
    failures = _kept_failures(cache, by_key)
    trial = trial or ModelTrial()
    trial.note(failures.values())
    sent: set[str] = set()

    def judge() -> None:
        if units:
            trial.judge(chat, step.request(units[:1]))

    def send(chunk: Sequence[str]) -> dict[str, str]:
        if not sent:
            trial.note(None for key in by_key if cache.has(key))
        judge()
        answers = _with_retries(chat, step, [by_key[key] for key in chunk])
        failures.update(
            (k, a) for k, a in zip(chunk, answers, strict=True) if isinstance(a, Failure)
        )
        if cache.keeps_failures:
            _keep_failures(cache, {key: failures[key] for key in chunk if key in failures})
        sent.update(chunk)
        trial.note(answers)
        consume(units_asked=len(chunk))
        return {
            key: json.dumps(answer, ensure_ascii=False)
            for key, answer in zip(chunk, answers, strict=True)
            if not isinstance(answer, Failure)
        }

    open_keys = [key for key in keys if key not in failures]
    known = cache.get_or_request(
        open_keys, send, first=_REQUESTS_IN_FIRST_CHUNK * step.units_per_request
    )
    if sent:
        judge()
    else:
        trial.note(None for key in known)
    consume(units=len(units), units_cached=len(by_key) - len(sent))
    return [json.loads(known[key]) if key in known else failures[key] for key in keys]


def _kept_failures(cache: ResponseCache, keys: Iterable[str]) -> dict[str, Failure]:
    if not cache.keeps_failures:
        return {}
    cache.refresh()
    kept = {key: cache.get(f"{_FAILED}{key}") for key in keys}
    return {key: Failure(*json.loads(said)) for key, said in kept.items() if said is not None}


def _keep_failures(cache: ResponseCache, failures: Mapping[str, Failure]) -> None:
    cache.put(
        {
            f"{_FAILED}{key}": json.dumps([failure.reason, failure.detail], ensure_ascii=False)
            for key, failure in failures.items()
            if not may_succeed_later(failure.reason)
        }
    )


def _with_retries(
    chat: ChatEngine, step: RequestStep[U], units: Sequence[U]
) -> list[Any | Failure]:
    """Request answers until every unit has a valid one or the attempts are used up.

    A response with an invalid part is discarded from the response cache: its valid parts are
    cached unit by unit, and the whole would only repeat its fault. It is discarded last, so that a
    run that is killed in between does not pay for it twice.
    """
    outcomes: dict[int, Any | Failure] = {}
    complaints: dict[int, str] = {}
    invalid: list[ChatRequest] = []
    doubted: set[int] = set()
    batches = list(_packed(step, units))
    for attempt in range(ATTEMPTS):
        if attempt:
            consume(units_retried=len(batches))
        failed = _attempt(chat, step, units, batches, complaints, outcomes, invalid)
        is_doubted = {i for i in failed if outcomes[i].reason == DOUBTED}
        again = [i for i in failed if not (i in is_doubted and i in doubted)]
        doubted |= is_doubted
        if not again:
            break
        batches = [[i] for i in again]
        for i in again:
            if (fault := outcomes[i]).reason != "prompt_too_long":
                # All faults so far, so that the model does not return to an earlier one.
                before = f"{complaints[i]}; then: " if i in complaints else ""
                complaints[i] = before + fault.detail
    if isinstance(chat, CachedEngine):
        chat.discard(invalid)
    return [outcomes[i] for i in range(len(units))]


def _attempt(
    chat: ChatEngine,
    step: RequestStep[U],
    units: Sequence[U],
    batches: Sequence[Sequence[int]],
    complaints: Mapping[int, str],
    outcomes: dict[int, Any | Failure],
    invalid: list[ChatRequest],
) -> list[int]:
    """Send each batch once; fill `outcomes` and add the requests with invalid answers to `invalid`.

    Returns:
        the numbers of the units to retry.
    """
    batched = [[units[i] for i in batch] for batch in batches]
    requests = [
        step.request(members, complaints.get(batch[0], ""))
        for members, batch in zip(batched, batches, strict=True)
    ]
    again: list[int] = []
    completions = chat.complete(requests)
    for batch, members, request, completion in zip(
        batches, batched, requests, completions, strict=True
    ):
        answers, is_final = _read(step, members, completion)
        outcomes.update(zip(batch, answers, strict=True))
        failed = [] if is_final else [i for i in batch if isinstance(outcomes[i], Failure)]
        again += failed
        if failed and isinstance(completion, Completion):
            invalid.append(request)
    return again


def _read(
    step: RequestStep[U], units: Sequence[U], completion: Completion | Failure
) -> tuple[Sequence[Any | Failure], bool]:
    """What a completion says of each unit, and whether a retry would be pointless."""
    if isinstance(completion, Failure):
        # The engine has retried already; only a request that is too long can be split.
        return [completion] * len(units), completion.reason != "prompt_too_long" or len(units) == 1
    if completion.finish_reason == "length":
        fault = Failure(MALFORMED, "the answer was cut off: it exceeded the allowed length")
        return [fault] * len(units), False
    try:
        return step.read(completion.text, units), False
    except AnswerError as error:
        return [Failure(MALFORMED, str(error))] * len(units), False


def _packed(step: RequestStep[U], units: Sequence[U]) -> Iterator[list[int]]:
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
