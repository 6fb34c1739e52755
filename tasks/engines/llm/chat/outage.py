"""Tells a request that fails for what it asks from servers that fail at everything.

A failure is the request's own if another request was answered since it was first sent. If none
was, the same request is asked with nothing in it: same instructions, same schema, no report. Only
if that is answered the failure stands; otherwise the run ends, so that a broken server or a
context that is too small for the instructions never turns a data set into rejects.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from storage.reasons import may_succeed_later
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, Message
from tasks.engines.protocols import Failure

_NOTHING = Message("user", "{}")
_FEW_TOKENS = 64
_PAUSE_S = 5.0

Ask = Callable[[ChatRequest], Awaitable[Completion | Failure]]


class Doubt:
    """What the answers so far say of the servers behind them; lives on one event loop."""

    def __init__(self, ask: Ask, patience_s: float) -> None:
        """Tries `ask` out; servers that worked before are given `patience_s` to recover."""
        self._ask = ask
        self._patience_s = patience_s
        self._one_trial = asyncio.Lock()
        self.answered = 0

    async def weigh(
        self, request: ChatRequest, outcome: Completion | Failure, answered_before: int
    ) -> None:
        """Take note of an outcome; returns if it is to stand.

        Args:
            request: what was asked.
            outcome: what came of it, after all attempts.
            answered_before: `answered` when the request was first sent.

        Raises:
            EngineError: if the servers fail at everything.
        """
        if isinstance(outcome, Completion):
            self.answered += 1
            return
        async with self._one_trial:
            if self.answered == answered_before:
                await self._try(request)
                self.answered += 1

    async def _try(self, request: ChatRequest) -> None:
        empty = without_report(request)
        patience_s = self._patience_s if self.answered else 0.0
        deadline = time.monotonic() + patience_s
        while isinstance(outcome := await self._ask(empty), Failure):
            if not may_succeed_later(outcome.reason) or time.monotonic() >= deadline:
                raise EngineError(
                    "The model server fails at every request, even at one without a report "
                    f"({outcome.reason}: {outcome.detail.rstrip('.')}). Nothing was rejected for "
                    "it: mend the server and run again; what was answered so far is kept."
                )
            await asyncio.sleep(min(_PAUSE_S, patience_s / 10))


def without_report(request: ChatRequest) -> ChatRequest:
    """The request with nothing in it: instructions and schema alone, and a short answer."""
    messages = (*request.messages[:-1], _NOTHING)
    return replace(request, messages=messages, max_tokens=min(request.max_tokens, _FEW_TOKENS))
