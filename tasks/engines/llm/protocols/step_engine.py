"""The common part of the text engines of all protocols: a step, a model, a response cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.chat.engine import ChatEngine
from tasks.engines.llm.protocols.batched_requests import RequestStep, request_answers
from tasks.engines.llm.protocols.embedded import EmbeddedSteps, is_left_to_rules
from tasks.engines.llm.settings import OnFailure
from tasks.engines.metering import consume
from tasks.engines.protocols import Failure, Fingerprint

U = TypeVar("U", bound=Hashable)
U_contra = TypeVar("U_contra", bound=Hashable, contravariant=True)


class EngineStep(RequestStep[U_contra], Protocol[U_contra]):
    """A step that says what decides its answers."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Protocol, version, prompt digest, and the chat engine's own."""
        ...


class StepEngine(Generic[U]):
    """Requests the answers about the units of one step that are not cached."""

    def __init__(
        self,
        step: EngineStep[U],
        chat: ChatEngine,
        caches: ResponseCaches,
        embedded: EmbeddedSteps,
        on_failure: OnFailure,
    ) -> None:
        self.step = step
        self._chat = chat
        self._cache = caches.for_owner(step.fingerprint)
        self._embedded = embedded
        self._on_failure = on_failure

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the step, and what decides about sentences that the model fails at."""
        return engine_fingerprint(self.step.fingerprint, self._embedded, self._on_failure)

    @property
    def concurrency(self) -> int | None:
        """Shards at once: they wait for the model, not for this machine's CPU."""
        return self._chat.concurrency

    def answers(self, units: Sequence[U]) -> dict[U, Any | Failure]:
        """The answer about each unit; equal units are requested once.

        Distinct units are counted by outcome: `units_answered`, or `units_failed_` with the reason.
        Their sum is `units_cached` + `units_asked`. Of those that failed, `units_by_rules` are left
        to the embedded step.
        """
        found = dict(
            zip(units, request_answers(self._chat, self._cache, self.step, units), strict=True)
        )
        failed = Counter(a.reason for a in found.values() if isinstance(a, Failure))
        if by_rules := sum(map(self._is_left_to_rules, found.values())):
            consume(units_by_rules=by_rules)
        consume(
            units_answered=len(found) - failed.total(),
            **{f"units_failed_{reason}": count for reason, count in failed.items()},
        )
        return found

    def _is_left_to_rules(self, answer: Any | Failure) -> bool:
        return is_left_to_rules(answer, self._on_failure)


def engine_fingerprint(
    step: Fingerprint, embedded: EmbeddedSteps, on_failure: OnFailure
) -> Fingerprint:
    """What decides the output of an engine beyond the answers of its step."""
    return {**step, "embedded": embedded.digest, "on_failure": on_failure}
