"""What a run will ask of a model, before anything is asked.

The plan is a rehearsal of the text steps over all shards: the embedded engines answer in the
model's place, the memory of answers is read but not written. The requests and the tokens going in
are therefore those of the run, as far as the model cleans and finds as the embedded engines do; the
tokens coming out are what the same answers would cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from storage.store import Store
from tasks.annotate import STEPS, annotate
from tasks.engines.llm.cache.response_cache import Memories, RememberingEngine
from tasks.engines.llm.chat.tokens import TokenCounter
from tasks.engines.llm.chat_choice import chat_fingerprint
from tasks.engines.llm.protocols.dry_run import RehearsalEngine
from tasks.engines.llm.settings import LlmSettings
from tasks.engines.registry import TextEngines
from tasks.pipeline.engine_choice import text_engines_asking
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import Taxonomy


@dataclass(frozen=True)
class Throughput:
    """Tokens that one GPU reads and writes a second, with many requests at a time."""

    tokens_in_per_second: float
    tokens_out_per_second: float

    def seconds(self, usage: Counter[str]) -> float:
        """Estimated seconds of one GPU (or group of GPUs that holds the model), prefixes cached."""
        reading = (usage["tokens_in"] - usage["tokens_shared"]) / self.tokens_in_per_second
        return reading + usage["tokens_out"] / self.tokens_out_per_second


def plan_run(
    shards: Sequence[pa.Table],
    settings: BuildSettings,
    llm: LlmSettings,
    taxonomy: Taxonomy,
    count: TokenCounter,
) -> dict[str, Counter[str]]:
    """What each text step of a run will take of the model, in the words of its manifests.

    units: sentences, or texts where the protocol asks about texts; of the distinct ones,
    units_remembered have an answer in the memory and units_asked have none; cache_hits: requests
    whose very words were asked before; tokens_shared: the part of tokens_in that every request
    of its kind begins with, computed once where prefixes are cached.

    Args:
        shards: the `studies` tables of the run's parts.
        settings: the run's.
        llm: their section of the same name.
        taxonomy: the targets that may be named.
        count: tokens of a text.
    """
    memories = Memories(Store(settings.store), writes=False)
    model = chat_fingerprint(llm)
    rehearsal = RehearsalEngine(taxonomy, settings.prompt_set(), count, model)
    chat = RememberingEngine(rehearsal, memories)
    engines = text_engines_asking(chat, memories, settings, llm, taxonomy)
    return usage_of_steps(shards, engines, settings, taxonomy)


def usage_of_steps(
    shards: Sequence[pa.Table], engines: TextEngines, settings: BuildSettings, taxonomy: Taxonomy
) -> dict[str, Counter[str]]:
    """Run the text steps as a build does, for what the engines are asked on the way."""
    usage = {step: Counter[str]() for step in STEPS}
    for studies in shards:
        found = annotate(
            studies,
            engines,
            taxonomy,
            require=settings.require_sections,
            positive=settings.positive,
        )
        for step, of_shard in found.usage.items():
            usage[step].update(of_shard)
    return usage
