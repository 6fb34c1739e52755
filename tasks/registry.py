"""Engines by the names that the configuration uses; each is imported only when it is chosen."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

from storage.store import Store
from tasks.engines import AssertionClassifier, Cleaner, Detector, Extractor, Segmenter
from tasks.llm.chat import ChatEngine
from tasks.settings import BuildSettings, LlmSettings
from taxonomy.targets import Taxonomy


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
    from tasks.atlas import AtlasDetector
    from tasks.hounsfield import HounsfieldSegmenter

    embedded = _embedded_text_engines(taxonomy)
    by_model = _model_text_engines(settings, settings.llm, taxonomy) if settings.llm else embedded
    return Engines(
        cleaner=(by_model if settings.cleaner == "llm" else embedded)[0],
        extractor=(by_model if settings.extractor == "llm" else embedded)[1],
        filter=(by_model if settings.filter == "llm" else embedded)[2],
        detector={"atlas": AtlasDetector}[settings.detector](),
        segmenter={"hounsfield": HounsfieldSegmenter}[settings.segmenter](),
    )


TextEngines = tuple[Cleaner, Extractor, AssertionClassifier]


def _embedded_text_engines(taxonomy: Taxonomy) -> TextEngines:
    from tasks.assertions import ContextClassifier
    from tasks.cleaning import RulesCleaner
    from tasks.lexicon import LexiconExtractor

    return RulesCleaner(), LexiconExtractor(taxonomy), ContextClassifier(taxonomy)


def _model_text_engines(
    settings: BuildSettings, llm: LlmSettings, taxonomy: Taxonomy
) -> TextEngines:
    from tasks.llm.answers import Memories, RememberingEngine
    from tasks.llm.protocols import text_engines

    memories = Memories(Store(settings.store))
    chat = RememberingEngine(chat_engine(llm), memories)
    made = text_engines(llm.protocol, chat, memories, taxonomy, settings.dataset)
    return made.cleaner, made.extractor, made.filter


@cache
def chat_engine(settings: LlmSettings) -> ChatEngine:
    """The engine that holds the model, one per process: it is shared by all shards and runs."""
    if settings.vllm is not None:
        from tasks.llm.vllm_engine import VllmEngine

        return VllmEngine(settings.vllm)
    if settings.server is not None:
        from tasks.llm.openai_server import OpenAIServerEngine

        return OpenAIServerEngine(settings.server)
    if settings.batch is not None:
        from tasks.llm.batching import batch_answers

        return batch_answers(settings.batch)
    raise ValueError("settings that were checked name a place where the model runs")
