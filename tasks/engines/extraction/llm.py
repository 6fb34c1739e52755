"""The engine `llm` of the step extract: the language model of the run's section `llm`."""

from __future__ import annotations

from tasks.engines.protocols import Extractor
from tasks.engines.registry import EngineContext, EngineDeclaration, EngineSettings


def _make(_: EngineSettings, context: EngineContext) -> Extractor:
    return context.require_language_model().extractor


ENGINE = EngineDeclaration(EngineSettings, _make)
