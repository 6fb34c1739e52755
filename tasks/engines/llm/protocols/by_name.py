"""The protocols by the names that the configuration uses: three engines each, one interface."""

from __future__ import annotations

from tasks.engines.llm.cache.response_cache import Memories
from tasks.engines.llm.chat.engine import ChatEngine
from tasks.engines.llm.protocols.cascade import CascadeFilter
from tasks.engines.llm.protocols.inline import InlineCleaner, InlineExtractor, InlineFilter
from tasks.engines.llm.protocols.joint import JointCleaner, JointExtractor, JointFilter
from tasks.engines.llm.protocols.spans import SpansCleaner, SpansExtractor
from tasks.engines.llm.protocols.spans_filter import SpansFilter
from tasks.engines.llm.settings import ProtocolName
from tasks.engines.registry import TextEngines
from taxonomy.targets import Taxonomy


def text_engines(
    protocol: ProtocolName,
    chat: ChatEngine,
    memories: Memories,
    taxonomy: Taxonomy,
    dataset: str,
) -> TextEngines:
    """The engines of a protocol.

    Args:
        protocol: how the model is asked.
        chat: the model.
        memories: what has been answered before.
        taxonomy: the targets that may be named.
        dataset: whose prompts to use; the common ones where a dataset has none of its own.
    """
    if protocol == "joint":
        return TextEngines(
            JointCleaner(chat, memories, taxonomy, dataset),
            JointExtractor(chat, memories, taxonomy, dataset),
            JointFilter(chat, memories, taxonomy, dataset),
        )
    if protocol == "inline":
        return TextEngines(
            InlineCleaner(chat, memories, taxonomy, dataset),
            InlineExtractor(chat, memories, taxonomy, dataset),
            InlineFilter(chat, memories, dataset),
        )
    by_model = SpansFilter(chat, memories, dataset)
    return TextEngines(
        SpansCleaner(chat, memories, taxonomy, dataset),
        SpansExtractor(chat, memories, taxonomy, dataset),
        CascadeFilter(by_model, taxonomy) if protocol == "cascade" else by_model,
    )
