"""The protocols by the names that the configuration uses; each has three engines."""

from __future__ import annotations

from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.chat.engine import ChatEngine
from tasks.engines.llm.protocols.cascade import CascadeFilter
from tasks.engines.llm.protocols.inline import InlineCleaner, InlineExtractor, InlineFilter
from tasks.engines.llm.protocols.joint import JointCleaner, JointExtractor, JointFilter
from tasks.engines.llm.protocols.spans import SpansCleaner, SpansExtractor
from tasks.engines.llm.protocols.spans_filter import SpansFilter
from tasks.engines.llm.settings import ProtocolName
from tasks.engines.protocols import TextEngines
from taxonomy.targets import Taxonomy


def text_engines(
    protocol: ProtocolName,
    chat: ChatEngine,
    caches: ResponseCaches,
    taxonomy: Taxonomy,
    dataset: str,
) -> TextEngines:
    """The engines of a protocol.

    Args:
        protocol: which one.
        chat: the model.
        caches: the response caches of the store.
        taxonomy: the targets that may be named.
        dataset: whose prompts to use; the common ones where a dataset has none of its own.
    """
    if protocol == "joint":
        return TextEngines(
            JointCleaner(chat, caches, taxonomy, dataset),
            JointExtractor(chat, caches, taxonomy, dataset),
            JointFilter(chat, caches, taxonomy, dataset),
        )
    if protocol == "inline":
        return TextEngines(
            InlineCleaner(chat, caches, taxonomy, dataset),
            InlineExtractor(chat, caches, taxonomy, dataset),
            InlineFilter(chat, caches, dataset),
        )
    by_model = SpansFilter(chat, caches, dataset)
    return TextEngines(
        SpansCleaner(chat, caches, taxonomy, dataset),
        SpansExtractor(chat, caches, taxonomy, dataset),
        CascadeFilter(by_model, taxonomy) if protocol == "cascade" else by_model,
    )
