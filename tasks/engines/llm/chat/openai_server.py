"""The engine for OpenAI-compatible servers: `vllm serve`, SGLang, llama.cpp.

Reliability follows what such servers ask of a client (exponential back-off with full jitter, as in
Brooker, "Exponential Backoff And Jitter", AWS 2015; `Retry-After`, RFC 9110). Trouble with one
request ends as a `Failure` after a bounded number of attempts; trouble with the servers themselves
ends the run with an `EngineError`, so that an outage never turns a data set into rejects
(`tasks.engines.llm.chat.outage` tells the one from the other).
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import cast

from tasks.engines.cancellation import result_of
from tasks.engines.llm.chat.endpoint import Endpoint, Setback
from tasks.engines.llm.chat.endpoint_pool import Fleet
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, account
from tasks.engines.llm.chat.outage import Doubt
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.protocols import Failure, Fingerprint

VERSION = "1"

_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 8.0
_ONE_LOOP = threading.Lock()


class OpenAIServerEngine:
    """Completes chats at one or more servers of the same model.

    Any number of threads may call `complete` at once, also one that runs an event loop of its own:
    the connections live on a loop in a background thread, and `max_concurrency` holds for all
    callers together.

    Raises:
        EngineError: if an address is remote and that is not allowed, or the API key is not set.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._fleet = Fleet(settings, _api_key(settings.api_key_variable))
        self._doubt = Doubt(self._answer_alone, settings.server_wait_s)

    @property
    def fingerprint(self) -> Fingerprint:
        """Model, revision and sampling; not the addresses, nor how a server takes a schema."""
        return {"name": "openai", "version": VERSION, **self._settings.identity()}

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Failure]:
        """One answer per request, order kept; attempts beyond the first are counted as retries.

        Failures are `prompt_too_long`, `request_refused`, `refused` (by the model), and after all
        attempts `server_error`, `rate_limited`, `timeout`, `connection_lost`, `unreachable` or
        `bad_answer`.

        Raises:
            EngineError: if no request can be answered: servers down or failing at everything,
                wrong key or model, schema not honoured.
            CalledOffError: if the surrounding run has ended.
        """
        future = asyncio.run_coroutine_threadsafe(self._complete(requests), _background_loop())
        answers, retries = result_of(future)
        account(answers, retries)
        return answers

    def close(self) -> None:
        """Give the connections back; a later `complete` opens new ones."""
        asyncio.run_coroutine_threadsafe(self._fleet.close(), _background_loop()).result()

    async def _complete(
        self, requests: Sequence[ChatRequest]
    ) -> tuple[list[Completion | Failure], int]:
        self._fleet.muster(any(request.schema is not None for request in requests))
        answers: list[Completion | Failure | None] = [None] * len(requests)
        pending = iter(enumerate(requests))
        width = min(len(requests), self._settings.max_concurrency * len(self._fleet.endpoints))
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
        """Answer requests until none are pending; the number of retries that it took.

        A fixed set of workers that share an iterator keeps memory flat however many requests there
        are; a task for each would not.
        """
        retries = 0
        for index, request in pending:
            answered_before = self._doubt.answered
            outcome, attempts = await self._answer(request)
            await self._doubt.weigh(request, outcome, answered_before)
            answers[index] = outcome
            retries += attempts - 1
        return retries

    async def _answer_alone(self, request: ChatRequest) -> Completion | Failure:
        return (await self._answer(request))[0]

    async def _answer(self, request: ChatRequest) -> tuple[Completion | Failure, int]:
        """The answer, and after how many attempts it came."""
        endpoint: Endpoint | None = None
        attempts = 0
        while True:
            endpoint = await self._fleet.choose(avoided=endpoint)
            outcome = await endpoint.ask(request)
            attempts += 1
            if not isinstance(outcome, Setback):
                return outcome, attempts
            if attempts > self._settings.retries:
                detail = f"Given up after {attempts} attempts; the last one: {outcome.detail}."
                return Failure(outcome.reason, detail), attempts
            await asyncio.sleep(_pause_s(outcome, attempts))


def _pause_s(setback: Setback, attempts: int) -> float:
    """What the server asks for, and full jitter on top so that clients do not return at once."""
    if setback.reason == "unreachable":
        return 0.0  # choosing a server waits until one is up
    longest = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (attempts - 1))
    jitter = random.uniform(0, longest)  # noqa: S311 - spreads load, guards nothing
    return (setback.wait_s or 0.0) + jitter


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not (key := os.environ.get(variable)):
        raise EngineError(
            f"The environment variable {variable}, which `api_key_variable` names, is not set."
        )
    return key


def _background_loop() -> asyncio.AbstractEventLoop:
    """The loop of this process's connections, in a thread that ends with the process."""
    with _ONE_LOOP:  # of two threads that ask first at the same time, each would get its own
        return _start_loop()


@cache
def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="chat-engine", daemon=True).start()
    return loop
