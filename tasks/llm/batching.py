"""Text steps through batch files: what is still to be asked, round after round.

Each round asks what the answers so far let one ask: extraction follows cleaning, and a malformed
answer is asked again with the fault told. When nothing is left, a build finds every answer there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from storage.store import Store
from tasks.engines import CleanedText, Failure, Fingerprint, Phrase
from tasks.llm.answers import Memories, RememberingEngine
from tasks.llm.batch_file import BatchAnswers
from tasks.llm.chat import ChatRequest, Completion
from tasks.llm.protocols import ProtocolName, text_engines
from tasks.llm.settings import BatchSettings
from taxonomy.targets import Taxonomy


def batch_answers(settings: BatchSettings) -> BatchAnswers:
    """The answers that there are; none before the first round.

    Raises:
        EngineError: if a file cannot be read.
    """
    pattern = Path(settings.answers)
    return BatchAnswers(sorted(pattern.parent.glob(pattern.name)), settings)


def unanswered_requests(
    texts: Sequence[str],
    protocol: ProtocolName,
    settings: BatchSettings,
    store: Store,
    taxonomy: Taxonomy,
    dataset: str,
) -> list[ChatRequest]:
    """What the three steps over some section texts have yet to ask.

    Args:
        texts: findings and impressions as the dataset has them.
        protocol: how the model is asked.
        settings: model, sampling, and the answers so far.
        store: its memory of answers takes in what the files answer, sentence by sentence, so that
            a build finds it however it packs sentences into requests.
        taxonomy: the targets that may be named.
        dataset: whose prompts to use.
    """
    collector = _Collector(batch_answers(settings))
    memories = Memories(store)
    chat = RememberingEngine(collector, memories)
    engines = text_engines(protocol, chat, memories, taxonomy, dataset)
    cleaned = engines.cleaner.clean(texts)
    kept = [text.text for text in cleaned if isinstance(text, CleanedText) and text.text]
    found = dict(zip(kept, engines.extractor.extract(kept), strict=True))
    phrases = {
        text: [phrase for phrase in answer if isinstance(phrase, Phrase)]
        for text, answer in found.items()
        if not isinstance(answer, Failure)
    }
    engines.filter.classify(list(phrases), list(phrases.values()))
    return collector.missing


class _Collector:
    """Answers from the files, and keeps what they do not hold."""

    def __init__(self, answers: BatchAnswers) -> None:
        self._answers = answers
        self.missing: list[ChatRequest] = []

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the answers."""
        return self._answers.fingerprint

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Failure]:
        """One answer per request, order kept."""
        answers = self._answers.complete(requests)
        self.missing += [
            request
            for request, answer in zip(requests, answers, strict=True)
            if isinstance(answer, Failure) and answer.reason == "not_in_batch"
        ]
        return answers
