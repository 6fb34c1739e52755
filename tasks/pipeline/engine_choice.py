"""Engines by the names that the configuration uses; each is imported only when it is chosen."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING

from storage.store import Store
from tasks.engines.llm.chat.engine import ChatEngine
from tasks.engines.protocols import (
    AssertionClassifier,
    Cleaner,
    Detector,
    Extractor,
    Fingerprint,
    Segmenter,
)
from tasks.pipeline.settings import BuildSettings, LlmSettings
from taxonomy.targets import Taxonomy

if TYPE_CHECKING:
    from tasks.engines.llm.cache.response_cache import Memories
    from tasks.engines.llm.protocols.by_name import TextEngines


@dataclass(frozen=True)
class Engines:
    """One engine per step."""

    cleaner: Cleaner
    extractor: Extractor
    filter: AssertionClassifier
    detector: Detector
    segmenter: Segmenter

    def names(self) -> dict[str, str]:
        """Name and version of each engine, by step, for people and provenance."""
        chosen = {field.name: getattr(self, field.name).fingerprint for field in fields(self)}
        return {step: f"{print_['name']} {print_['version']}" for step, print_ in chosen.items()}


def choose_engines(settings: BuildSettings, taxonomy: Taxonomy) -> Engines:
    """The engines that the settings name; none of them loads an image or a model yet."""
    from tasks.engines.detection.atlas import AtlasDetector
    from tasks.engines.segmentation.hounsfield import HounsfieldSegmenter

    text = _text_engines(settings, taxonomy)
    return Engines(
        cleaner=text.cleaner,
        extractor=text.extractor,
        filter=text.filter,
        detector={"atlas": AtlasDetector}[settings.detector](),
        segmenter={"hounsfield": HounsfieldSegmenter}[settings.segmenter](),
    )


def _text_engines(settings: BuildSettings, taxonomy: Taxonomy) -> TextEngines:
    if settings.llm is None:
        return _embedded_text_engines(taxonomy)
    from tasks.engines.llm.cache.response_cache import Memories, RememberingEngine

    memories = Memories(Store(settings.store))
    chat = RememberingEngine(_metered_engine(settings.llm), memories)
    return text_engines_asking(chat, memories, settings, settings.llm, taxonomy)


def text_engines_asking(
    chat: ChatEngine,
    memories: Memories,
    settings: BuildSettings,
    llm: LlmSettings,
    taxonomy: Taxonomy,
) -> TextEngines:
    """The text engines of a run whose steps with the engine `llm` ask `chat`.

    Args:
        chat: the model, or what stands in for it.
        memories: what has been answered before.
        settings: which steps ask a model; the others keep their embedded engine.
        llm: by which protocol.
        taxonomy: the targets that may be named.
    """
    from tasks.engines.llm.protocols.by_name import TextEngines, text_engines

    embedded = _embedded_text_engines(taxonomy)
    by_model = text_engines(llm.protocol, chat, memories, taxonomy, settings.dataset)
    return TextEngines(
        cleaner=(by_model if settings.cleaner == "llm" else embedded).cleaner,
        extractor=(by_model if settings.extractor == "llm" else embedded).extractor,
        filter=(by_model if settings.filter == "llm" else embedded).filter,
    )


def _embedded_text_engines(taxonomy: Taxonomy) -> TextEngines:
    from tasks.engines.llm.protocols.by_name import TextEngines
    from tasks.engines.text.assertion import ContextClassifier
    from tasks.engines.text.cleaning import RulesCleaner
    from tasks.engines.text.lexicon import LexiconExtractor

    return TextEngines(RulesCleaner(), LexiconExtractor(taxonomy), ContextClassifier(taxonomy))


@cache
def _metered_engine(settings: LlmSettings) -> ChatEngine:
    """The chat engine with a clock, one per process; batch files take no time that we see."""
    from tasks.engines.llm.chat.timed import MeteredEngine

    if settings.batch is not None:
        return chat_engine(settings)
    servers = len(settings.server.base_urls) if settings.server else 1
    return MeteredEngine(chat_engine(settings), servers)


def chat_fingerprint(settings: LlmSettings) -> Fingerprint:
    """That of `chat_engine`, without an engine: no address is looked up and no key is read."""
    from tasks.engines.llm.chat import batch_file, openai_server, vllm_engine

    if settings.vllm is not None:
        return vllm_engine.VllmEngine(settings.vllm).fingerprint
    if settings.server is not None:
        identity = settings.server.identity()
        return {"name": "openai", "version": openai_server.VERSION, **identity}
    if settings.batch is not None:
        return batch_file.BatchAnswers([], settings.batch).fingerprint
    raise ValueError("settings that were checked name a place where the model runs")


@cache
def chat_engine(settings: LlmSettings) -> ChatEngine:
    """The engine that holds the model, one per process: it is shared by all shards and runs."""
    if settings.vllm is not None:
        from tasks.engines.llm.chat.vllm_engine import VllmEngine

        return VllmEngine(settings.vllm)
    if settings.server is not None:
        from tasks.engines.llm.chat.openai_server import OpenAIServerEngine

        return OpenAIServerEngine(settings.server)
    if settings.batch is not None:
        from tasks.pipeline.batch_rounds import batch_answers

        return batch_answers(settings.batch)
    raise ValueError("settings that were checked name a place where the model runs")
