"""Several segmenters in a row: each is asked for what those before it do not know."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from storage.images.types import Volume
from storage.records import Site
from tasks.engines.chain import (
    ChainSettings,
    chain_concurrency,
    chain_fingerprint,
    label,
    may_be_known_elsewhere,
)
from tasks.engines.protocols import EngineAnswerError, Segmentation, Segmenter, Ungrounded
from tasks.engines.registry import EngineContext, EngineDeclaration, Step, make_engine


class SegmenterChain:
    """Masks of the first segmenter that knows the target; each mask says which one made it.

    What a segmenter looked for and did not find is not asked of the next one.
    """

    def __init__(self, segmenters: Sequence[Segmenter]) -> None:
        self._segmenters = segmenters
        self.fingerprint = chain_fingerprint(segmenters)
        self.concurrency = chain_concurrency(segmenters)

    def segment(self, volume: Volume, sites: Sequence[Site]) -> Iterator[Segmentation | Ungrounded]:
        """Answer each site, order kept; until its turn a mask takes a bit a voxel."""
        answers: dict[int, _Packed | Ungrounded] = {}
        left = list(range(len(sites)))
        for segmenter in self._segmenters:
            asked = [sites[i] for i in left]
            given = segmenter.segment(volume, asked) if asked else ()
            for i, answer in zip(left, given, strict=True):
                answers[i] = _packed(answer, segmenter)
            left = [i for i in left if may_be_known_elsewhere(answers[i])]
        for i in range(len(sites)):
            found = answers.pop(i)
            yield found if isinstance(found, Ungrounded) else found.unpacked()


@dataclass(frozen=True)
class _Packed:
    """A segmentation whose voxels are bits; 40 masks of 512 × 512 × 300 are 0.4 GB, not 3 GB."""

    bits: NDArray[np.uint8]
    shape: tuple[int, ...]
    score: float | None
    engine: str

    def unpacked(self) -> Segmentation:
        bits = np.unpackbits(self.bits, count=math.prod(self.shape))
        return Segmentation(bits.view(np.bool_).reshape(self.shape), self.score, self.engine)


def _packed(answer: Segmentation | Ungrounded, segmenter: Segmenter) -> _Packed | Ungrounded:
    """The answer with the name of its engine; a mask that is none is the fault of that engine.

    Raises:
        EngineAnswerError: for a mask whose values are not boolean.
    """
    if isinstance(answer, Ungrounded):
        return answer
    made_by = answer.engine or label(segmenter)
    if answer.voxels.dtype != np.bool_:
        raise EngineAnswerError(f"{made_by} gave a mask of {answer.voxels.dtype}, not boolean")
    return _Packed(np.packbits(answer.voxels), answer.voxels.shape, answer.score, made_by)


class Settings(ChainSettings):
    """`segmenter: [sat, hounsfield]`, or a section with `engines`."""

    STEP: ClassVar[Step] = "segment"


def _make(settings: Settings, context: EngineContext) -> SegmenterChain:
    made = [make_engine("segment", one, context) for one in settings.engines]
    return SegmenterChain([cast(Segmenter, one) for one in made])


ENGINE = EngineDeclaration(Settings, _make)
