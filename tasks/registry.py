"""Engines by the names that the configuration uses; each is imported only when it is chosen."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tasks.engines import AssertionClassifier, Cleaner, Detector, Extractor, Segmenter
from tasks.settings import BuildSettings
from taxonomy.targets import Taxonomy


@dataclass(frozen=True)
class Engines:
    """One engine per step."""

    cleaner: Cleaner
    extractor: Extractor
    filter: AssertionClassifier
    detector: Detector
    segmenter: Segmenter

    def names(self) -> dict[str, str]:
        """Name and version of each engine, by step, for people and provenance."""
        chosen = {field.name: getattr(self, field.name).fingerprint for field in fields(self)}
        return {step: f"{print_['name']} {print_['version']}" for step, print_ in chosen.items()}


def choose_engines(settings: BuildSettings, taxonomy: Taxonomy) -> Engines:
    """The engines that the settings name; none of them loads an image or a model yet."""
    from tasks.assertions import ContextClassifier
    from tasks.atlas import AtlasDetector
    from tasks.cleaning import RulesCleaner
    from tasks.hounsfield import HounsfieldSegmenter
    from tasks.lexicon import LexiconExtractor

    extractors = {"lexicon": LexiconExtractor}
    return Engines(
        cleaner={"rules": RulesCleaner}[settings.cleaner](),
        extractor=extractors[settings.extractor](taxonomy),
        filter={"context": ContextClassifier}[settings.filter](taxonomy),
        detector={"atlas": AtlasDetector}[settings.detector](),
        segmenter={"hounsfield": HounsfieldSegmenter}[settings.segmenter](),
    )
