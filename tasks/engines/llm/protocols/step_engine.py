"""What the text engines of all protocols have in common: a step, a model, and its memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from tasks.engines.llm.cache.response_cache import Memories
from tasks.engines.llm.chat.engine import ChatEngine
from tasks.engines.llm.protocols.batched_requests import Step, ask
from tasks.engines.metering import consume
from tasks.engines.protocols import Failure, Fingerprint

U = TypeVar("U", bound=Hashable)
U_contra = TypeVar("U_contra", bound=Hashable, contravariant=True)


class EngineStep(Step[U_contra], Protocol[U_contra]):
    """A step that says what decides its answers."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Protocol, version, prompt digest, and the chat engine's own."""
        ...


class StepEngine(Generic[U]):
    """Asks a model about the units of one step what its memory does not hold."""

    def __init__(self, step: EngineStep[U], chat: ChatEngine, memories: Memories) -> None:
        self.step = step
        self._chat = chat
        self._memory = memories.of(step.fingerprint)

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the step: protocol, version, prompt digest, and the chat engine's own."""
        return self.step.fingerprint

    def answers(self, units: Sequence[U]) -> dict[U, Any | Failure]:
        """The answer about each unit; one that occurs again is asked about once.

        Distinct units are counted by what came of them: `units_answered`, or `units_failed_` with
        the reason. Together they are those that were remembered and those that were asked about.
        """
        found = dict(zip(units, ask(self._chat, self._memory, self.step, units), strict=True))
        failed = Counter(a.reason for a in found.values() if isinstance(a, Failure))
        consume(
            units_answered=len(found) - failed.total(),
            **{f"units_failed_{reason}": count for reason, count in failed.items()},
        )
        return found
