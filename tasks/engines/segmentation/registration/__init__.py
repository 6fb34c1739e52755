"""The embedded CT engine for organs: labels of one CT, moved to others by registration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engines.registry import EngineContext, EngineDeclaration, EngineSettings

if TYPE_CHECKING:
    from tasks.engines.segmentation.registration.engine import RegistrationSegmenter


def _make(_: EngineSettings, __: EngineContext) -> RegistrationSegmenter:
    from tasks.engines.segmentation.registration.engine import RegistrationSegmenter

    return RegistrationSegmenter()


ENGINE = EngineDeclaration(EngineSettings, _make, inputs=("chest_ct",))
