"""The engines of a run: what the settings choose, made from what the run gives them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, cast

from storage.store import Store
from tasks.engines.earlier_names import (
    named_detector,
    named_extractor,
    named_filter,
    named_segmenter,
)
from tasks.engines.protocols import (
    AssertionClassifier,
    Cleaner,
    Detector,
    Extractor,
    Segmenter,
    TextEngines,
)
from tasks.engines.registry import EngineChoiceError, EngineContext, make_engine
from tasks.pipeline.settings import BuildSettings, SettingsError
from taxonomy.targets import Taxonomy

if TYPE_CHECKING:
    from tasks.engines.llm.cache.response_cache import ResponseCaches
    from tasks.engines.llm.chat.engine import ChatEngine
    from tasks.engines.llm.settings import LlmSettings


@dataclass(frozen=True)
class Engines(TextEngines):
    """One engine per step."""

    detector: Detector
    segmenter: Segmenter

    def names(self) -> dict[str, str]:
        """Name and version of each engine, by step, for people and provenance."""
        chosen = {field.name: getattr(self, field.name).fingerprint for field in fields(self)}
        return {step: f"{print_['name']} {print_['version']}" for step, print_ in chosen.items()}


def choose_engines(settings: BuildSettings, taxonomy: Taxonomy) -> Engines:
    """The engines that the settings name; none of them loads an image or a model yet.

    Raises:
        SettingsError: if an engine's module gives something else than an engine of its step.
    """
    context = EngineContext(taxonomy.of_engines, settings.dataset)
    try:
        text = _text_engines(settings, taxonomy)
        return Engines(
            cleaner=text.cleaner,
            extractor=text.extractor,
            filter=text.filter,
            detector=named_detector(
                cast(Detector, make_engine("detect", settings.detector, context)), taxonomy
            ),
            segmenter=named_segmenter(
                cast(Segmenter, make_engine("segment", settings.segmenter, context)), taxonomy
            ),
        )
    except EngineChoiceError as error:
        raise SettingsError(str(error)) from error


def _text_engines(settings: BuildSettings, taxonomy: Taxonomy) -> TextEngines:
    if settings.llm is None:
        return _chosen_text_engines(settings, taxonomy)
    from tasks.engines.llm.cache.response_cache import CachedEngine, ResponseCaches
    from tasks.engines.llm.chat_choice import metered_engine

    from_files = settings.llm.batch is not None
    caches = ResponseCaches(Store(settings.store), keeps_failures=from_files)
    chat = CachedEngine(metered_engine(settings.llm), caches)
    return text_engines_for_chat(chat, caches, settings, settings.llm, taxonomy)


def text_engines_for_chat(
    chat: ChatEngine,
    caches: ResponseCaches,
    settings: BuildSettings,
    llm: LlmSettings,
    taxonomy: Taxonomy,
) -> TextEngines:
    """The text engines of a run; its steps with the engine `llm` send their requests to `chat`.

    Args:
        chat: the model, or what stands in for it.
        caches: the response caches of the store.
        settings: which steps use a model; the others keep the engine that they name.
        llm: which protocol.
        taxonomy: the targets that may be named.
    """
    from tasks.engines.llm.protocols.by_name import text_engines

    prompts = settings.prompt_set()
    known = taxonomy.of_engines
    by_model = text_engines(llm.protocol, chat, caches, known, prompts, llm.on_failure)
    return _chosen_text_engines(settings, taxonomy, by_model)


def _chosen_text_engines(
    settings: BuildSettings, taxonomy: Taxonomy, by_model: TextEngines | None = None
) -> TextEngines:
    context = EngineContext(taxonomy.of_engines, settings.dataset, by_model)
    extractor = cast(Extractor, make_engine("extract", settings.extractor, context))
    classifier = cast(AssertionClassifier, make_engine("filter", settings.filter, context))
    return TextEngines(
        cleaner=cast(Cleaner, make_engine("clean", settings.cleaner, context)),
        extractor=named_extractor(extractor, taxonomy),
        filter=named_filter(classifier, taxonomy),
    )
