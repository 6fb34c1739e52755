"""The engine `llm` of the step clean: the language model of the run's section `llm`."""

from __future__ import annotations

from tasks.engines.protocols import Cleaner
from tasks.engines.registry import EngineContext, EngineDeclaration, EngineSettings


def _make(_: EngineSettings, context: EngineContext) -> Cleaner:
    return context.require_language_model().cleaner


ENGINE = EngineDeclaration(EngineSettings, _make)
