"""Engines that know renamed targets by their earlier names.

Vocabularies, atlases and models name targets, and do not change with a team's taxonomy. Where it
renames a target, these stand between the steps, which use the name of today, and an engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from storage.images.types import Radiograph, Volume
from storage.records import Box, Phrase, Site
from tasks.engines.protocols import (
    AssertionClassifier,
    BatchDetector,
    Detection,
    Detector,
    Engine,
    Extractor,
    Failure,
    Fingerprint,
    PhraseAnswer,
    Segmentation,
    Segmenter,
    Ungrounded,
)
from taxonomy.targets import Taxonomy


class _Renaming:
    """An engine, and the taxonomy that has other names than the engine."""

    def __init__(self, engine: Engine, taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy
        self.fingerprint: Fingerprint = engine.fingerprint
        if (concurrency := getattr(engine, "concurrency", None)) is not None:
            self.concurrency: int = concurrency

    def _sites(self, sites: Sequence[Site]) -> list[Site]:
        return [replace(site, target=self._taxonomy.to_engines(site.target)) for site in sites]


class RenamingExtractor(_Renaming):
    """Names what an extractor finds as the taxonomy does."""

    def __init__(self, engine: Extractor, taxonomy: Taxonomy) -> None:
        super().__init__(engine, taxonomy)
        self._engine = engine

    def extract(self, texts: Sequence[str]) -> list[Sequence[Phrase | Failure] | Failure]:
        """As `tasks.engines.protocols.Extractor`."""
        return [
            found if isinstance(found, Failure) else [self._named(item) for item in found]
            for found in self._engine.extract(texts)
        ]

    def _named(self, found: Phrase | Failure) -> Phrase | Failure:
        if isinstance(found, Failure):
            return found
        return replace(found, target=self._taxonomy.from_engines(found.target))


class RenamingFilter(_Renaming):
    """Asks a filter about phrases by the names that it knows."""

    def __init__(self, engine: AssertionClassifier, taxonomy: Taxonomy) -> None:
        super().__init__(engine, taxonomy)
        self._engine = engine

    def classify(
        self, texts: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> Sequence[Sequence[PhraseAnswer]]:
        """As `tasks.engines.protocols.AssertionClassifier`."""
        known = [
            [replace(p, target=self._taxonomy.to_engines(p.target)) for p in own] for own in phrases
        ]
        return self._engine.classify(texts, known)


class RenamingDetector(_Renaming):
    """Asks a detector for sites by the names that it knows."""

    def __init__(self, engine: Detector, taxonomy: Taxonomy) -> None:
        super().__init__(engine, taxonomy)
        self._engine = engine

    def detect(
        self, image: Radiograph, sites: Sequence[Site]
    ) -> Sequence[Sequence[Box] | Detection | Ungrounded]:
        """As `tasks.engines.protocols.Detector`."""
        return self._engine.detect(image, self._sites(sites))


class RenamingBatchDetector(RenamingDetector):
    """The same for a detector that takes several radiographs at a time."""

    def __init__(self, engine: BatchDetector, taxonomy: Taxonomy) -> None:
        super().__init__(engine, taxonomy)
        self._batches = engine
        self.batch_size = engine.batch_size

    def detect_batch(
        self, images: Sequence[tuple[Radiograph, Sequence[Site]]]
    ) -> Sequence[Sequence[Sequence[Box] | Detection | Ungrounded]]:
        """As `tasks.engines.protocols.BatchDetector`."""
        return self._batches.detect_batch([(image, self._sites(own)) for image, own in images])


class RenamingSegmenter(_Renaming):
    """Asks a segmenter for sites by the names that it knows."""

    def __init__(self, engine: Segmenter, taxonomy: Taxonomy) -> None:
        super().__init__(engine, taxonomy)
        self._engine = engine

    def segment(self, volume: Volume, sites: Sequence[Site]) -> Iterable[Segmentation | Ungrounded]:
        """As `tasks.engines.protocols.Segmenter`."""
        return self._engine.segment(volume, self._sites(sites))


def named_extractor(engine: Extractor, taxonomy: Taxonomy) -> Extractor:
    """The extractor, which answers with the names of today."""
    return RenamingExtractor(engine, taxonomy) if taxonomy.earlier_names else engine


def named_filter(engine: AssertionClassifier, taxonomy: Taxonomy) -> AssertionClassifier:
    """The filter, which is asked with the names of today."""
    return RenamingFilter(engine, taxonomy) if taxonomy.earlier_names else engine


def named_detector(engine: Detector, taxonomy: Taxonomy) -> Detector:
    """The detector, which is asked with the names of today."""
    if not taxonomy.earlier_names:
        return engine
    if isinstance(engine, BatchDetector):
        return RenamingBatchDetector(engine, taxonomy)
    return RenamingDetector(engine, taxonomy)


def named_segmenter(engine: Segmenter, taxonomy: Taxonomy) -> Segmenter:
    """The segmenter, which is asked with the names of today."""
    return RenamingSegmenter(engine, taxonomy) if taxonomy.earlier_names else engine
