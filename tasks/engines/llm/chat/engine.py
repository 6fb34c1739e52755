"""What a chat engine is: a batch of requests in, completions or failures out, order kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from tasks.engines.metering import consume, latencies
from tasks.engines.protocols import Failure, Fingerprint


class EngineError(Exception):
    """No answer can be had from an engine at all; the message says why and what to do.

    Unlike a `Failure`, which is about one request, this ends the run: what was answered so far is
    kept, and the same command goes on from there.
    """


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to be continued.

    schema: JSON schema that the answer must follow; None for free text.
    max_tokens: bound on the answer; every engine passes it on, whatever its own default.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer with what it cost.

    finish_reason: `stop` for a whole answer, `length` for one that was cut.
    seconds: from sending to the last token, waiting in the engine's own queue included.
    """

    text: str
    finish_reason: str
    tokens_in: int
    tokens_out: int
    seconds: float


class ChatEngine(Protocol):
    """Completes conversations with one model and fixed sampling settings."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Engine, model, revision and sampling: what decides the answers."""
        ...

    def complete(self, requests: Sequence[ChatRequest]) -> Sequence[Completion | Failure]:
        """One answer per request, order kept; a failure never holds the others back.

        Requests and tokens are counted with `tasks.engines.metering.consume`.
        """
        ...


def account(answers: Sequence[Completion | Failure], retries: int = 0) -> None:
    """Count what a batch of answers took, for the shard that asked.

    An answer that came in no time was not timed: batch files do not tell.
    """
    completions = [answer for answer in answers if isinstance(answer, Completion)]
    consume(
        requests=len(answers),
        tokens_in=sum(completion.tokens_in for completion in completions),
        tokens_out=sum(completion.tokens_out for completion in completions),
        retries=retries,
        **latencies(completion.seconds for completion in completions if completion.seconds),
    )
