"""Counts the time that a model is at work, which the plan of a run estimates as GPU hours."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest, Completion
from tasks.engines.metering import BusyClock
from tasks.engines.protocols import Failure, Fingerprint


class MeteredEngine:
    """A chat engine whose calls are counted as `busy_us`, shared between callers.

    Counted is the time from asking to the last answer, so retries, queues and servers that have
    run out of work count too: it is the time for which the GPUs could do nothing else.
    """

    def __init__(self, engine: ChatEngine, models: int = 1) -> None:
        """Counts for each of `models` copies of the model that share the requests."""
        self._engine = engine
        self._models = models
        self._clock = BusyClock()

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the engine behind: measuring changes no answer."""
        return self._engine.fingerprint

    def complete(self, requests: Sequence[ChatRequest]) -> Sequence[Completion | Failure]:
        """One answer per request, order kept."""
        with self._clock.running(self._models):
            return self._engine.complete(requests)
