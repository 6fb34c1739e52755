"""Counts the time during which a model is busy; the plan of a run estimates it as GPU hours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest, Completion, EngineWrapper
from tasks.engines.metering import BusyClock
from tasks.engines.protocols import Failure


class StartingEngine(ChatEngine, Protocol):
    """A chat engine whose servers may have to start first."""

    def wait_until_up(self, requests: Sequence[ChatRequest]) -> None:
        """Return once a server can take requests like these."""
        ...


class MeteredEngine(EngineWrapper[StartingEngine]):
    """A chat engine whose calls are counted as `busy_us`, shared between callers.

    The time runs from a call, or from when a server is up, to its last answer. So retries, queues
    and idle servers count, but not the loading of weights before the first request: the plan of a
    run does not know how long that takes.
    """

    def __init__(self, engine: StartingEngine, models: int = 1) -> None:
        """Count the time once for each of `models` copies of the model that share the requests."""
        super().__init__(engine)
        self._models = models
        self._clock = BusyClock()

    def complete(self, requests: Sequence[ChatRequest]) -> Sequence[Completion | Failure]:
        """One answer per request, order kept."""
        self._engine.wait_until_up(requests)
        with self._clock.running(self._models):
            return self._engine.complete(requests)
