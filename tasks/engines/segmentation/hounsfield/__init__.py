"""The embedded CT engine: segmentation by Hounsfield units and classical image processing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engines.registry import EngineContext, EngineDeclaration, EngineSettings

if TYPE_CHECKING:
    from tasks.engines.segmentation.hounsfield.engine import HounsfieldSegmenter


def _make(_: EngineSettings, __: EngineContext) -> HounsfieldSegmenter:
    from tasks.engines.segmentation.hounsfield.engine import HounsfieldSegmenter

    return HounsfieldSegmenter()


ENGINE = EngineDeclaration(EngineSettings, _make)
