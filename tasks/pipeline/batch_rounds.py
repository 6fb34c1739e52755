"""Text steps through batch files: the requests that still lack an answer, round after round.

A round's requests depend on the answers so far: extraction reads what cleaning gave, and a
malformed answer is requested again with its fault described. When no request is left, a build finds
every answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from storage.reasons import may_succeed_later
from storage.store import Store
from tasks.engines.llm.cache.response_cache import CachedEngine, ResponseCaches
from tasks.engines.llm.chat.batch_file import BatchAnswers
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError
from tasks.engines.llm.chat.settings import BatchSettings
from tasks.engines.llm.chat_choice import answer_files, batch_answers
from tasks.engines.llm.settings import LlmSettings
from tasks.engines.protocols import Failure, Fingerprint
from tasks.pipeline.engine_choice import text_engines_for_chat
from tasks.pipeline.request_plan import usage_of_steps
from tasks.pipeline.settings import BuildSettings
from tasks.pipeline.taxonomies import taxonomy_of
from taxonomy.targets import Taxonomy


def require_answers(
    shards: Sequence[pa.Table], settings: BuildSettings, llm: LlmSettings, batch: BatchSettings
) -> None:
    """Check that batch files answer every request of a build.

    Without this check a request that was never made would look like one that the model failed at.
    A request that vLLM could not answer does not end the build: its reports are rejected with the
    reason.

    Args:
        shards: the `studies` tables of the build's parts.
        settings: the build's.
        llm: their section of the same name.
        batch: model, sampling, and the answers so far.

    Raises:
        EngineError: if answers are missing, with their number.
    """
    taxonomy = taxonomy_of(settings)
    answers = batch_answers(batch)
    collector = _collect(shards, settings, llm, answers, taxonomy, writes=False)
    if not collector.missing:
        # A build packs sentences by shard into other requests: it finds them one by one.
        _collect(shards, settings, llm, answers, taxonomy, writes=True)
        return
    files = len(answer_files(batch))
    raise EngineError(
        f"{len(collector.missing):,} of {collector.asked:,} requests have no answer (files that "
        f"match {batch.answers}: {files or 'none'}): run `vividmed batch {settings.dataset}` "
        "again, `vllm run-batch` on what it writes, and then this command; nothing was rejected."
    )


def unanswered_requests(
    shards: Sequence[pa.Table],
    settings: BuildSettings,
    llm: LlmSettings,
    answers: BatchAnswers,
    taxonomy: Taxonomy,
) -> list[ChatRequest]:
    """The requests that the text steps of a build have yet to make, or to make again.

    Every round goes through the answers of all rounds before it in the same requests, so that the
    third answer about a sentence is the last one. Requests that vLLM failed at for reasons of its
    own, such as an error in the middle of a batch, are made again.

    Args:
        shards: the `studies` tables of the build's parts.
        settings: the build's.
        llm: their section of the same name.
        answers: those so far.
        taxonomy: the targets that may be named.
    """
    collector = _collect(shards, settings, llm, answers, taxonomy, writes=False)
    return collector.missing + collector.failed


def _collect(
    shards: Sequence[pa.Table],
    settings: BuildSettings,
    llm: LlmSettings,
    answers: BatchAnswers,
    taxonomy: Taxonomy,
    *,
    writes: bool,
) -> _Collector:
    """Run the text steps on the answers; with `writes`, the store's cache takes them in.

    It takes in nothing before all answers are there: which sentences share a request depends on
    which of them are in the cache, and no request of a round may change.
    """
    collector = _Collector(answers)
    caches = ResponseCaches(Store(settings.store), writes=writes, keeps_failures=True)
    chat = CachedEngine(collector, caches)
    engines = text_engines_for_chat(chat, caches, settings, llm, taxonomy)
    # All shards at once: which sentences share a request must not depend on which shards had an
    # answer before, or every round would ask for other requests than the last one wrote.
    usage_of_steps([pa.concat_tables(shards)], engines, settings, taxonomy)
    return collector


class _Collector:
    """Answers from the files, and keeps the requests that they do not answer.

    asked: how many requests there were, without those that the response cache answers.
    missing: requests that the files do not hold.
    failed: requests that failed for a reason that may pass.
    """

    concurrency: int | None = None  # answers are read from files

    def __init__(self, answers: BatchAnswers) -> None:
        self._answers = answers
        self.asked = 0
        self.missing: list[ChatRequest] = []
        self.failed: list[ChatRequest] = []

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the answers."""
        return self._answers.fingerprint

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Failure]:
        """One answer per request, order kept."""
        answers = self._answers.complete(requests)
        self.asked += len(requests)
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Failure) and answer.reason == "not_in_batch":
                self.missing.append(request)
            elif isinstance(answer, Failure) and may_succeed_later(answer.reason):
                self.failed.append(request)
        return answers
