"""The protocols by the names that the configuration uses; each has three engines."""

from __future__ import annotations

from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.chat.engine import ChatEngine
from tasks.engines.llm.protocols.cascade import CascadeFilter
from tasks.engines.llm.protocols.inline import InlineCleaner, InlineExtractor, InlineFilter
from tasks.engines.llm.protocols.joint import JointCleaner, JointExtractor, JointFilter
from tasks.engines.llm.protocols.spans import SpansCleaner, SpansExtractor
from tasks.engines.llm.protocols.spans_filter import SpansFilter
from tasks.engines.llm.protocols.step_engine import ProtocolSetup
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
    """The engines of a protocol; for the arguments see `ProtocolSetup`."""
    setup = ProtocolSetup(chat, caches, taxonomy, dataset, on_failure)
    if protocol == "joint":
        return TextEngines(JointCleaner(setup), JointExtractor(setup), JointFilter(setup))
    if protocol == "inline":
        return TextEngines(InlineCleaner(setup), InlineExtractor(setup), InlineFilter(setup))
    by_model = SpansFilter(setup)
    filter_ = CascadeFilter(by_model, taxonomy) if protocol == "cascade" else by_model
    return TextEngines(SpansCleaner(setup), SpansExtractor(setup), filter_)
