"""What a run will ask of a model, before anything is asked.

The plan is a rehearsal over all reports: the embedded engines answer in the model's place, the
memory of answers is read but not written. The requests and the tokens going in are therefore
those of the run, as far as the model cleans and finds as the embedded engines do; the tokens
coming out are what the same answers would cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from storage.store import Store
from tasks.engines import CleanedText, Failure, Fingerprint, Phrase
from tasks.llm.answers import Memories, RememberingEngine
from tasks.llm.protocols import ProtocolName, text_engines
from tasks.llm.rehearsal import RehearsalEngine
from tasks.llm.tokens import TokenCounter
from tasks.usage import metered
from taxonomy.targets import Taxonomy

T = TypeVar("T")


@dataclass(frozen=True)
class StepPlan:
    """What one step will ask.

    units: sentences, or texts where the protocol asks about texts; of the distinct ones,
    units_remembered have an answer in the memory and units_asked have none; cache_hits: requests
    whose very words were asked before; tokens_shared: the part of tokens_in that every request
    of its kind begins with, computed once where prefixes are cached.
    """

    step: str
    units: int
    units_remembered: int
    units_asked: int
    requests: int
    cache_hits: int
    tokens_in: int
    tokens_shared: int
    tokens_out: int


@dataclass(frozen=True)
class Throughput:
    """Tokens that one GPU reads and writes a second, with many requests at a time."""

    tokens_in_per_second: float
    tokens_out_per_second: float


@dataclass(frozen=True)
class Plan:
    """What a run of a protocol over some reports will ask, step by step."""

    protocol: ProtocolName
    sections: int
    steps: tuple[StepPlan, ...]

    @property
    def total(self) -> StepPlan:
        """All steps together."""
        names = [name for name in StepPlan.__dataclass_fields__ if name != "step"]
        return StepPlan("all", *(sum(getattr(s, name) for s in self.steps) for name in names))

    def gpu_hours(self, throughput: Throughput, *, prefix_caching: bool = True) -> float:
        """Estimated hours of one GPU (or of one group of GPUs that holds the model)."""
        total = self.total
        read = total.tokens_in - (total.tokens_shared if prefix_caching else 0)
        seconds = read / throughput.tokens_in_per_second
        return (seconds + total.tokens_out / throughput.tokens_out_per_second) / 3600


def plan_run(
    texts: Sequence[str],
    protocol: ProtocolName,
    model: Fingerprint,
    store: Store,
    taxonomy: Taxonomy,
    dataset: str,
    count: TokenCounter,
) -> Plan:
    """Plan the text steps over the section texts of a dataset.

    Args:
        texts: findings and impressions as the dataset has them.
        protocol: how the model is asked.
        model: the fingerprint of the chat engine of the run; its remembered answers are hits.
        store: where the memory of answers is.
        taxonomy: the targets that may be named.
        dataset: whose prompts to use.
        count: tokens of a text.
    """
    memories = Memories(store, writes=False)
    rehearsal = RehearsalEngine(taxonomy, dataset, count, model)
    chat = RememberingEngine(rehearsal, memories)
    engines = text_engines(protocol, chat, memories, taxonomy, dataset)

    cleaned, clean = _metered("clean", lambda: engines.cleaner.clean(texts))
    kept = [t.text for t in cleaned if isinstance(t, CleanedText) and t.text]
    found, extract = _metered("extract", lambda: engines.extractor.extract(kept))
    phrases = [_phrases(answer) for answer in found]
    _, filter_ = _metered("filter", lambda: engines.filter.classify(kept, phrases))
    return Plan(protocol, len(texts), (clean, extract, filter_))


def _phrases(answer: Sequence[Phrase | Failure] | Failure) -> list[Phrase]:
    items = () if isinstance(answer, Failure) else answer
    return [item for item in items if isinstance(item, Phrase)]


def _metered(step: str, run: Callable[[], T]) -> tuple[T, StepPlan]:
    with metered() as usage:
        result = run()
    counts = (name for name in StepPlan.__dataclass_fields__ if name != "step")
    return result, StepPlan(step, *(usage[name] for name in counts))
