"""The common part of the text engines of all protocols: a step, a model, a response cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from storage.reasons import may_succeed_later
from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.chat.engine import ChatEngine
from tasks.engines.llm.prompts.prompting import Prompt
from tasks.engines.llm.protocols.batched_requests import RequestStep, request_answers
from tasks.engines.llm.protocols.embedded import embedded_steps
from tasks.engines.llm.protocols.trial import ModelTrial
from tasks.engines.llm.settings import OnFailure
from tasks.engines.metering import consume
from tasks.engines.protocols import Failure, Fingerprint
from taxonomy.targets import Taxonomy

U = TypeVar("U", bound=Hashable)
U_contra = TypeVar("U_contra", bound=Hashable, contravariant=True)


class EngineStep(RequestStep[U_contra], Protocol[U_contra]):
    """A step that says what decides its answers."""

    prompt: Prompt

    @property
    def fingerprint(self) -> Fingerprint:
        """Protocol, version, prompt digest, and the chat engine's own."""
        ...


@dataclass(frozen=True)
class ProtocolSetup:
    """What the engines of a protocol are made from.

    chat: the model. caches: the response caches of the store. taxonomy: the targets that may be
    named. dataset: whose prompts to use; the common ones where it has none of its own.
    on_failure: what becomes of a sentence that the model failed at.
    """

    chat: ChatEngine
    caches: ResponseCaches
    taxonomy: Taxonomy
    dataset: str
    on_failure: OnFailure = "rules"


class StepEngine(Generic[U]):
    """Requests the answers about the units of one step that are not cached."""

    def __init__(self, step: EngineStep[U], setup: ProtocolSetup) -> None:
        self.step = step
        self._chat = setup.chat
        self._cache = setup.caches.for_owner(step.fingerprint)
        self._embedded = embedded_steps(setup.taxonomy)
        self._trial = ModelTrial()
        self._setup = setup

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the step, and what decides about sentences that the model fails at."""
        return engine_fingerprint(self.step.fingerprint, self._setup)

    @property
    def concurrency(self) -> int | None:
        """Shards at once: they wait for the model, not for this machine's CPU."""
        return self._chat.concurrency

    def answers(self, units: Sequence[U]) -> dict[U, Any | Failure]:
        """The answer about each unit; equal units are requested once.

        Distinct units are counted by outcome: `units_answered`, or `units_failed_` with the reason.
        Their sum is `units_cached` + `units_asked`. Of those that failed, `units_by_rules` are left
        to the embedded step.

        Raises:
            EngineError: if no request can be answered, or nearly no answer is of use.
        """
        answers = request_answers(self._chat, self._cache, self.step, units, self._trial)
        found = dict(zip(units, answers, strict=True))
        failed = Counter(a.reason for a in found.values() if isinstance(a, Failure))
        if by_rules := sum(map(self.is_left_to_rules, found.values())):
            consume(units_by_rules=by_rules)
        consume(
            units_answered=len(found) - failed.total(),
            **{f"units_failed_{reason}": count for reason, count in failed.items()},
        )
        return found

    def is_left_to_rules(self, answer: Any | Failure) -> bool:
        """Whether the embedded step answers in the model's place.

        Not where a later run may have the model's answer, as with batch files.
        """
        is_final = isinstance(answer, Failure) and not may_succeed_later(answer.reason)
        return is_final and self._setup.on_failure == "rules"


def engine_fingerprint(step: Fingerprint, setup: ProtocolSetup) -> Fingerprint:
    """What decides the output of an engine: its step's answers, and what stands in for them."""
    embedded = embedded_steps(setup.taxonomy).digest
    taxonomy = setup.taxonomy.digest("lexicon")
    return {
        **step,
        "embedded": embedded,
        "taxonomy": taxonomy,
        "on_failure": setup.on_failure,
    }
