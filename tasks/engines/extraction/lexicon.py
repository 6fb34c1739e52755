"""The engine `lexicon` of the step extract: see `tasks.engines.text.lexicon`."""

from __future__ import annotations

from tasks.engines.registry import EngineContext, EngineDeclaration, EngineSettings
from tasks.engines.text.lexicon import LexiconExtractor


def _make(_: EngineSettings, context: EngineContext) -> LexiconExtractor:
    return LexiconExtractor(context.taxonomy)


ENGINE = EngineDeclaration(EngineSettings, _make)
