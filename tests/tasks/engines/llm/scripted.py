"""Chat engines for tests: one answers from a list, one as the embedded engines would."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from storage.records import Phrase
from tasks.engines.llm.chat.engine import ChatRequest, Completion
from tasks.engines.llm.chat.tokens import approximate_tokens
from tasks.engines.llm.protocols.dry_run import DryRunEngine
from tasks.engines.protocols import Failure
from taxonomy.targets import load_taxonomy

NAME = {"name": "scripted", "version": "1"}


class ScriptedEngine:
    """Gives the next answer of a script to each request, and keeps what it was asked."""

    concurrency: int | None = None

    def __init__(self, *script: str | Completion | Failure) -> None:
        self.fingerprint = NAME
        self.asked: list[ChatRequest] = []
        self._script = iter(script)

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Failure]:
        self.asked += requests
        answers = [next(self._script) for _ in requests]
        return [
            Completion(answer, "stop", 10, 5, 0.1) if isinstance(answer, str) else answer
            for answer in answers
        ]

    @property
    def data(self) -> list[str]:
        """What each request was about."""
        return [request.messages[-1].content for request in self.asked]


def texts_of(answers: Sequence[Completion | Failure]) -> list[str]:
    """The texts of answers, none of which may be a failure."""
    completions = [answer for answer in answers if isinstance(answer, Completion)]
    assert len(completions) == len(answers), answers
    return [completion.text for completion in completions]


class SpyEngine:
    """Passes requests on and keeps them."""

    concurrency: int | None = None

    def __init__(self, answer: Callable[[Sequence[ChatRequest]], Iterable[Completion]]) -> None:
        self.fingerprint: Mapping[str, str] = NAME
        self.asked: list[ChatRequest] = []
        self.answers: list[Completion] = []
        self._answer = answer

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        self.asked += requests
        answers = list(self._answer(requests))
        self.answers += answers
        return answers


def dry_run_engine(dataset: str = "openi") -> SpyEngine:
    """An engine that answers as the embedded engines would."""
    dry_run = DryRunEngine(load_taxonomy(), dataset, approximate_tokens, NAME)
    return SpyEngine(dry_run.complete)


def one_target_a_phrase(phrases: list[Phrase]) -> list[Phrase]:
    """Without the further targets of the same words, which a model does not give."""
    return list({(p.start, p.end): p for p in phrases[::-1]}.values())[::-1]
