"""Distinguishes a request that fails because of its content from an outage of all servers.

A failure is the request's own if another request was answered since it was first sent. If none
was, a probe is sent: the same instructions and schema without a report. If the probe is answered,
the failure is accepted as the request's own. Otherwise the run ends, so that a broken server, or a
context window that is too small for the instructions, does not turn a data set into rejects.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from storage.reasons import may_succeed_later
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, Message
from tasks.engines.protocols import Failure

_EMPTY_REPORT = Message("user", "{}")
_PROBE_MAX_TOKENS = 64
"""Tokens of the probe's answer, which is not read; few, so that the probe is fast."""

_LONGEST_PAUSE_S = 5.0
"""Seconds between two probes; a server that is back is noticed within that time."""

Send = Callable[[ChatRequest], Awaitable[Completion | Failure]]


class OutageCheck:
    """Decides whether a failure is the request's own; used on one event loop only.

    answered: how many requests and probes were answered so far.
    """

    def __init__(self, send: Send, recovery_s: float) -> None:
        """Servers that answered before are given `recovery_s` seconds to recover.

        Args:
            send: sends a request, with retries.
            recovery_s: how long probes are repeated after an earlier answer.
        """
        self._send = send
        self._recovery_s = recovery_s
        self._probe_lock = asyncio.Lock()
        self.answered = 0

    async def check(
        self, request: ChatRequest, outcome: Completion | Failure, answered_before: int
    ) -> None:
        """Return if the outcome is the request's own, success or failure.

        Args:
            request: the request.
            outcome: its outcome after all attempts.
            answered_before: the value of `answered` when the request was first sent.

        Raises:
            EngineError: if the servers fail at the probe too.
        """
        if isinstance(outcome, Completion):
            self.answered += 1
            return
        async with self._probe_lock:
            if self.answered == answered_before:
                await self._probe(request)
                self.answered += 1

    async def _probe(self, request: ChatRequest) -> None:
        empty = without_report(request)
        recovery_s = self._recovery_s if self.answered else 0.0
        deadline = time.monotonic() + recovery_s
        while isinstance(outcome := await self._send(empty), Failure):
            if not may_succeed_later(outcome.reason) or time.monotonic() >= deadline:
                raise EngineError(
                    "The model server fails at every request, even one without a report "
                    f"({outcome.reason}: {outcome.detail.rstrip('.')}). No report was rejected "
                    "because of it: repair the server and run again; answers so far are kept."
                )
            await asyncio.sleep(min(_LONGEST_PAUSE_S, recovery_s / 10))


def without_report(request: ChatRequest) -> ChatRequest:
    """The request with instructions and schema but no report, and a short answer."""
    messages = (*request.messages[:-1], _EMPTY_REPORT)
    return replace(
        request, messages=messages, max_tokens=min(request.max_tokens, _PROBE_MAX_TOKENS)
    )
