"""The engine `rules` of the step clean: see `tasks.engines.text.cleaning`."""

from __future__ import annotations

from tasks.engines.registry import EngineContext, EngineDeclaration, EngineSettings
from tasks.engines.text.cleaning import RulesCleaner


def _make(_: EngineSettings, context: EngineContext) -> RulesCleaner:
    return RulesCleaner(context.taxonomy)


ENGINE = EngineDeclaration(EngineSettings, _make)
