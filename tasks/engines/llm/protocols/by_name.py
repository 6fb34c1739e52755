"""The protocols by the names that the configuration uses; each has three engines."""

from __future__ import annotations

from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.chat.engine import ChatEngine
from tasks.engines.llm.protocols.cascade import CascadeFilter
from tasks.engines.llm.protocols.inline import InlineCleaner, InlineExtractor, InlineFilter
from tasks.engines.llm.protocols.joint import JointCleaner, JointExtractor, JointFilter
from tasks.engines.llm.protocols.spans import SpansCleaner, SpansExtractor
from tasks.engines.llm.protocols.spans_filter import SpansFilter
from tasks.engines.llm.settings import OnFailure, ProtocolName
from tasks.engines.protocols import TextEngines
from taxonomy.targets import Taxonomy


def text_engines(
    protocol: ProtocolName,
    chat: ChatEngine,
    caches: ResponseCaches,
    taxonomy: Taxonomy,
    dataset: str,
    on_failure: OnFailure = "rules",
) -> TextEngines:
    """The engines of a protocol.

    Args:
        protocol: which one.
        chat: the model.
        caches: the response caches of the store.
        taxonomy: the targets that may be named.
        dataset: whose prompts to use; the common ones where a dataset has none of its own.
        on_failure: what becomes of a sentence that the model failed at.
    """
    if protocol == "joint":
        return TextEngines(
            JointCleaner(chat, caches, taxonomy, dataset, on_failure),
            JointExtractor(chat, caches, taxonomy, dataset, on_failure),
            JointFilter(chat, caches, taxonomy, dataset, on_failure),
        )
    if protocol == "inline":
        return TextEngines(
            InlineCleaner(chat, caches, taxonomy, dataset, on_failure),
            InlineExtractor(chat, caches, taxonomy, dataset, on_failure),
            InlineFilter(chat, caches, taxonomy, dataset, on_failure),
        )
    by_model = SpansFilter(chat, caches, taxonomy, dataset, on_failure)
    return TextEngines(
        SpansCleaner(chat, caches, taxonomy, dataset, on_failure),
        SpansExtractor(chat, caches, taxonomy, dataset, on_failure),
        CascadeFilter(by_model, taxonomy) if protocol == "cascade" else by_model,
    )
