"""The engine `context` of the step filter: see `tasks.engines.text.assertion`."""

from __future__ import annotations

from tasks.engines.registry import EngineContext, EngineDeclaration, EngineSettings
from tasks.engines.text.assertion import ContextClassifier


def _make(_: EngineSettings, context: EngineContext) -> ContextClassifier:
    return ContextClassifier(context.taxonomy)


ENGINE = EngineDeclaration(EngineSettings, _make)
