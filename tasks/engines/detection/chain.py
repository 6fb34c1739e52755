"""Several detectors in a row: each is asked for what those before it do not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, cast

from storage.images.types import Radiograph
from storage.records import Box, Site
from tasks.engines.chain import (
    ChainSettings,
    chain_concurrency,
    chain_fingerprint,
    label,
    may_be_known_elsewhere,
)
from tasks.engines.protocols import BatchDetector, Detection, Detector, Ungrounded
from tasks.engines.registry import EngineContext, EngineDeclaration, Step, make_engine

Films = Sequence[tuple[Radiograph, Sequence[Site]]]


class DetectorChain:
    """Boxes of the first detector that knows the target; each says which one made it.

    What a detector looked for and did not find is not asked of the next one.

    batch_size: the largest of the detectors'; each gets at most as many as it takes.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = detectors
        self.fingerprint = chain_fingerprint(detectors)
        self.concurrency = chain_concurrency(detectors)
        self.batch_size = max(_batch_size(detector) for detector in detectors)

    def detect(self, image: Radiograph, sites: Sequence[Site]) -> list[Detection | Ungrounded]:
        """Answer each site, order kept."""
        return self.detect_batch([(image, sites)])[0]

    def detect_batch(self, images: Films) -> list[list[Detection | Ungrounded]]:
        """Answer each site of each radiograph, order kept."""
        answers: list[dict[int, Detection | Ungrounded]] = [{} for _ in images]
        left = [list(range(len(sites))) for _, sites in images]
        for detector in self._detectors:
            asked = [i for i, sites in enumerate(left) if sites]
            films = [(images[i][0], [images[i][1][j] for j in left[i]]) for i in asked]
            for i, given in zip(asked, _in_batches(detector, films), strict=True):
                for j, answer in zip(left[i], given, strict=True):
                    answers[i][j] = _signed(answer, detector)
                left[i] = [j for j in left[i] if may_be_known_elsewhere(answers[i][j])]
        return [[answers[i][j] for j in range(len(sites))] for i, (_, sites) in enumerate(images)]


def _in_batches(
    detector: Detector, films: Films
) -> list[Sequence[Sequence[Box] | Detection | Ungrounded]]:
    if not isinstance(detector, BatchDetector):
        return [detector.detect(image, sites) for image, sites in films]
    size = detector.batch_size
    batches = [films[start : start + size] for start in range(0, len(films), size)]
    return [answers for batch in batches for answers in detector.detect_batch(batch)]


def _batch_size(detector: Detector) -> int:
    return detector.batch_size if isinstance(detector, BatchDetector) else 1


def _signed(
    answer: Sequence[Box] | Detection | Ungrounded, detector: Detector
) -> Detection | Ungrounded:
    if isinstance(answer, Ungrounded):
        return answer
    given = answer if isinstance(answer, Detection) else Detection(tuple(answer))
    return replace(given, engine=given.engine or label(detector))


class Settings(ChainSettings):
    """`detector: [detrex, cxas, atlas]`, or a section with `engines`."""

    STEP: ClassVar[Step] = "detect"


def _make(settings: Settings, context: EngineContext) -> DetectorChain:
    made = [make_engine("detect", one, context) for one in settings.engines]
    return DetectorChain([cast(Detector, one) for one in made])


ENGINE = EngineDeclaration(Settings, _make)
