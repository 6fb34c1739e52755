"""The requests and tokens that a run will take, before any request is sent.

The plan is a dry run of the text steps over all shards: the embedded engines answer in the model's
place, and the response cache is read but not written. Requests and input tokens are those of the
run, as far as the model cleans and extracts like the embedded engines; output tokens are those of
the embedded engines' answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from storage.store import Store
from tasks.annotate import STEPS, annotate
from tasks.engines.llm.cache.response_cache import CachedEngine, ResponseCaches
from tasks.engines.llm.chat.tokens import TokenCounter
from tasks.engines.llm.chat_choice import chat_fingerprint
from tasks.engines.llm.protocols.dry_run import DryRunEngine
from tasks.engines.llm.settings import LlmSettings
from tasks.engines.protocols import TextEngines
from tasks.pipeline.engine_choice import text_engines_for_chat
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import Taxonomy


@dataclass(frozen=True)
class Throughput:
    """Tokens that one GPU reads and writes a second, with many requests at once."""

    tokens_in_per_second: float
    tokens_out_per_second: float

    def seconds(self, usage: Counter[str]) -> float:
        """Estimated seconds of one GPU (or group that shares the model) with prefix caching."""
        reading = (usage["tokens_in"] - usage["tokens_shared"]) / self.tokens_in_per_second
        return reading + usage["tokens_out"] / self.tokens_out_per_second


def plan_run(
    shards: Sequence[pa.Table],
    settings: BuildSettings,
    llm: LlmSettings,
    taxonomy: Taxonomy,
    count: TokenCounter,
) -> dict[str, Counter[str]]:
    """What each text step of a run will take, under the names of `usage` in manifests.

    units: sentences, or texts where the protocol works on texts; of the distinct ones,
    units_cached are in the response cache and units_asked are not; cache_hits: requests that were
    sent before in the same words; tokens_shared: the part of tokens_in in the prefix that all
    requests of a step share, computed once with prefix caching.

    Args:
        shards: the `studies` tables of the run's parts.
        settings: the run's.
        llm: their section of the same name.
        taxonomy: the targets that may be named.
        count: tokens of a text.
    """
    caches = ResponseCaches(Store(settings.store), writes=False)
    model = chat_fingerprint(llm)
    dry_run = DryRunEngine(taxonomy, settings.prompt_set(), count, model)
    chat = CachedEngine(dry_run, caches)
    engines = text_engines_for_chat(chat, caches, settings, llm, taxonomy)
    return usage_of_steps(shards, engines, settings, taxonomy)


def usage_of_steps(
    shards: Sequence[pa.Table], engines: TextEngines, settings: BuildSettings, taxonomy: Taxonomy
) -> dict[str, Counter[str]]:
    """Run the text steps as a build does; returns the usage of their engines."""
    usage = {step: Counter[str]() for step in STEPS}
    for studies in shards:
        found = annotate(
            studies,
            engines,
            taxonomy,
            require=settings.required_sections(),
            positive=settings.positive,
        )
        for step, step_usage in found.usage.items():
            usage[step].update(step_usage)
    return usage
