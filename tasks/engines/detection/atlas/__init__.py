"""The embedded 2D detector: an anatomical atlas registered to a radiograph by its lung fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engines.registry import EngineContext, EngineDeclaration, EngineSettings

if TYPE_CHECKING:
    from tasks.engines.detection.atlas.engine import AtlasDetector


def _make(_: EngineSettings, __: EngineContext) -> AtlasDetector:
    from tasks.engines.detection.atlas.engine import AtlasDetector

    return AtlasDetector()


ENGINE = EngineDeclaration(EngineSettings, _make, inputs=("chest_ct",))
