"""What an engine of your own is made with; `docs/extending.md` has one.

The modules behind these names have other paths in the repository than in the installed package;
here they are the same in both.
"""

from storage.images.types import Radiograph, Volume
from storage.records import Assertion, Box, Modifiers, Phrase, Site
from tasks.engines.protocols import (
    AssertionClassifier,
    BatchDetector,
    CleanedText,
    Cleaner,
    Detection,
    Detector,
    EngineAnswerError,
    Extractor,
    Failure,
    Segmentation,
    Segmenter,
    Ungrounded,
)
from tasks.engines.registry import EngineContext, EngineDeclaration, EngineSettings

__all__ = [
    "Assertion",
    "AssertionClassifier",
    "BatchDetector",
    "Box",
    "CleanedText",
    "Cleaner",
    "Detection",
    "Detector",
    "EngineAnswerError",
    "EngineContext",
    "EngineDeclaration",
    "EngineSettings",
    "Extractor",
    "Failure",
    "Modifiers",
    "Phrase",
    "Radiograph",
    "Segmentation",
    "Segmenter",
    "Site",
    "Ungrounded",
    "Volume",
]
