"""The engine for OpenAI-compatible servers: `vllm serve`, SGLang, llama.cpp.

Retries follow the usual practice for such servers (exponential back-off with full jitter, as in
Brooker, "Exponential Backoff And Jitter", AWS 2015; `Retry-After`, RFC 9110). The loop is written
out, since each attempt goes to the server that is best then; tenacity would take 77 µs a request
for it, where this takes less than one. A request
that keeps failing becomes a `Failure` after a bounded number of attempts; an outage of the servers
ends the run with an `EngineError`, so that it does not turn a data set into rejects
(`tasks.engines.llm.chat.outage` distinguishes the two).
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import cast

from tasks.engines.cancellation import cancellable_result
from tasks.engines.llm.chat.endpoint import Endpoint, TransientFailure
from tasks.engines.llm.chat.endpoint_pool import EndpointPool
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, count_usage
from tasks.engines.llm.chat.outage import OutageCheck
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.protocols import Failure, Fingerprint

VERSION = "1"

_FIRST_BACKOFF_S = 0.5
"""Seconds; about the time in which a batching server finishes some of its requests."""

_LONGEST_BACKOFF_S = 8.0
"""Seconds; with the default of 5 retries, a request is retried for up to 16 s in all."""

_MOST_TIMEOUTS = 2
"""Attempts at a request that end by `answer_timeout_s`, which is minutes: a silent server would
otherwise hold a run for hours."""

SHARDS_PER_SERVER = 4
"""Shards of one stage at once. `max_concurrency` bounds the requests in flight, so this only has to
supply enough of them: a shard begins with chunks of 16 requests, which double, and three stages
send requests, so 192 at first, near the default bound of 256. More would cost threads alone."""

_LOOP_LOCK = threading.Lock()


class OpenAIServerEngine:
    """Completes chats at one or more servers of the same model.

    Any number of threads may call `complete` at once, even from within an event loop: the
    connections belong to a loop in a background thread, and `max_concurrency` bounds the requests
    of all callers together.

    Raises:
        EngineError: if an address is remote and that is not allowed, or the API key is not set.
    """

    def __init__(
        self, settings: ServerSettings, why_ended: Callable[[], str] | None = None
    ) -> None:
        """For servers that this run started, `why_ended` says that they have ended, and why."""
        self._settings = settings
        self._pool = EndpointPool(settings, _api_key(settings.api_key_variable), why_ended)
        self._outage_check = OutageCheck(self._answer_alone, settings.server_wait_s)

    @property
    def fingerprint(self) -> Fingerprint:
        """Model, revision and sampling; not the addresses, nor the field that carries a schema."""
        return {"name": "openai", "version": VERSION, **self._settings.identity()}

    @property
    def concurrency(self) -> int | None:
        """Shards of one stage that may wait for the servers at once."""
        return SHARDS_PER_SERVER * len(self._settings.base_urls)

    def wait_until_up(self, requests: Sequence[ChatRequest]) -> None:
        """Return once a server can take requests like these; `complete` waits for that by itself.

        Raises:
            EngineError: if none comes up in time, or none can be used.
            RunCancelledError: if the run was cancelled.
        """
        if requests:
            future = asyncio.run_coroutine_threadsafe(self._up(requests), _background_loop())
            cancellable_result(future)

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Failure]:
        """One answer per request, order kept; attempts beyond the first are counted as retries.

        Failures are `prompt_too_long`, `request_refused`, `refused` (by the model), and after all
        attempts `server_error`, `rate_limited`, `timeout`, `connection_lost`, `unreachable` or
        `bad_answer`.

        Raises:
            EngineError: if no request can be answered: servers down or failing at everything,
                wrong key or model, schema not enforced.
            RunCancelledError: if the run was cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(self._complete(requests), _background_loop())
        answers, retries = cancellable_result(future)
        count_usage(answers, retries)
        return answers

    def close(self) -> None:
        """Close the connections; a later `complete` opens new ones."""
        asyncio.run_coroutine_threadsafe(self._pool.close(), _background_loop()).result()

    async def _up(self, requests: Sequence[ChatRequest]) -> None:
        self._pool.prepare(any(request.schema is not None for request in requests))
        await self._pool.choose()

    async def _complete(
        self, requests: Sequence[ChatRequest]
    ) -> tuple[list[Completion | Failure], int]:
        self._pool.prepare(any(request.schema is not None for request in requests))
        answers: list[Completion | Failure | None] = [None] * len(requests)
        pending = iter(enumerate(requests))
        width = min(len(requests), self._settings.max_concurrency * len(self._pool.endpoints))
        try:
            async with asyncio.TaskGroup() as workers:
                tasks = [workers.create_task(self._work(pending, answers)) for _ in range(width)]
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        answered = cast("list[Completion | Failure]", answers)  # no worker left one out
        return answered, sum(task.result() for task in tasks)

    async def _work(
        self,
        pending: Iterator[tuple[int, ChatRequest]],
        answers: list[Completion | Failure | None],
    ) -> int:
        """Answer requests until none are pending; returns the number of retries.

        A fixed number of workers share one iterator, so memory does not grow with the number of
        requests, as it would with a task for each.
        """
        retries = 0
        for index, request in pending:
            answered_before = self._outage_check.answered
            outcome, attempts = await self._answer(request)
            await self._outage_check.check(request, outcome, answered_before)
            answers[index] = outcome
            retries += attempts - 1
        return retries

    async def _answer_alone(self, request: ChatRequest) -> Completion | Failure:
        return (await self._answer(request))[0]

    async def _answer(self, request: ChatRequest) -> tuple[Completion | Failure, int]:
        """The answer, and the number of attempts."""
        endpoint: Endpoint | None = None
        attempts = timeouts = 0
        while True:
            endpoint = await self._pool.choose(avoided=endpoint)
            outcome = await endpoint.ask(request)
            attempts += 1
            if not isinstance(outcome, TransientFailure):
                return outcome, attempts
            timeouts += outcome.reason == "timeout"
            if attempts > self._settings.retries or timeouts == _MOST_TIMEOUTS:
                detail = f"Given up after {attempts} attempts; the last one: {outcome.detail}."
                return Failure(outcome.reason, detail), attempts
            await asyncio.sleep(_pause_s(outcome, attempts))


def _pause_s(failure: TransientFailure, attempts: int) -> float:
    """The wait that the server asks for plus full jitter, so that clients do not retry together."""
    if failure.reason == "unreachable":
        return 0.0  # `choose` waits until a server is up
    longest = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (attempts - 1))
    jitter = random.uniform(0, longest)  # noqa: S311 - not for security
    return (failure.wait_s or 0.0) + jitter


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not (key := os.environ.get(variable)):
        raise EngineError(
            f"The environment variable {variable}, which `api_key_variable` names, is not set."
        )
    return key


def _background_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process's connections, in a daemon thread."""
    with _LOOP_LOCK:  # else two first callers would each start a loop
        return _start_loop()


@cache
def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="chat-engine", daemon=True).start()
    return loop
