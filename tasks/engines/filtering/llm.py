"""The engine `llm` of the step filter: the language model of the run's section `llm`."""

from __future__ import annotations

from tasks.engines.protocols import AssertionClassifier
from tasks.engines.registry import EngineContext, EngineDeclaration, EngineSettings


def _make(_: EngineSettings, context: EngineContext) -> AssertionClassifier:
    return context.require_language_model().filter


ENGINE = EngineDeclaration(EngineSettings, _make)
