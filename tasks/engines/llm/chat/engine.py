"""The protocol of chat engines: requests in, completions or failures out, in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from tasks.engines.metering import consume, latencies
from tasks.engines.protocols import Failure, Fingerprint


class EngineError(Exception):
    """An engine cannot answer any request; the message says why and what to do.

    Unlike a `Failure`, which is about one request, this ends the run: what was answered so far is
    kept, and the same command continues from there.
    """


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to be continued.

    schema: JSON schema that the answer must follow; None for free text.
    max_tokens: upper bound on the answer's tokens; sent with every request.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, its tokens and its latency.

    finish_reason: `stop` for a complete answer, `length` for one cut at `max_tokens`.
    seconds: from sending the request to the last token, including the engine's own queue; 0 if
        unknown.
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

    @property
    def concurrency(self) -> int | None:
        """Shards that may wait for it at once in a stage; None: it works on this machine's CPU."""
        ...

    def complete(self, requests: Sequence[ChatRequest]) -> Sequence[Completion | Failure]:
        """One answer per request, order kept; one failure does not stop the other requests.

        Requests and tokens are counted with `tasks.engines.metering.consume`.
        """
        ...


E = TypeVar("E", bound=ChatEngine)


class EngineWrapper(Generic[E]):
    """The common part of engines that pass requests on to another one and change no answer."""

    def __init__(self, engine: E) -> None:
        self._engine = engine

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the wrapped engine."""
        return self._engine.fingerprint

    @property
    def concurrency(self) -> int | None:
        """That of the wrapped engine."""
        return self._engine.concurrency


def count_usage(answers: Sequence[Completion | Failure], retries: int = 0) -> None:
    """Count the requests, tokens and latencies of a batch of answers for the current shard.

    Answers of 0 seconds were not timed (batch files) and are left out of the latencies.
    """
    completions = [answer for answer in answers if isinstance(answer, Completion)]
    consume(
        requests=len(answers),
        tokens_in=sum(completion.tokens_in for completion in completions),
        tokens_out=sum(completion.tokens_out for completion in completions),
        retries=retries,
        **latencies(completion.seconds for completion in completions if completion.seconds),
    )
