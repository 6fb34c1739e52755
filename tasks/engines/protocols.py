"""What an engine is: one small protocol a step, and the answers that an engine may give.

An engine works on the records of `storage.records` and on numpy arrays; the steps
(`tasks.clean`, `tasks.extract`, …) convert them to and from Arrow tables. Engines are chosen by
configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from storage.images.types import Radiograph, Volume
from storage.records import Assertion, Box, Phrase, Site

Fingerprint = Mapping[str, str]
"""What decides an engine's output, recorded in every manifest; `name` and `version` always."""


@dataclass(frozen=True, slots=True)
class CleanedText:
    """One section after cleaning.

    removed: the passages dropped or rewritten, as they were.
    by_rules: the sentences, as they were, that the rules cleaned in place of a language model that
        failed at them.
    """

    text: str
    removed: tuple[str, ...] = ()
    by_rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A segmenter's answer: a boolean array (x, y, z) on the volume's grid.

    The step encodes it as a `storage.records.Mask`.

    score: 0 to 1; None if the engine gives none.
    engine: name and version of the engine that made it, where that is not the one that was asked.
    """

    voxels: NDArray[np.bool_]
    score: float | None
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """A detector's boxes at a site, with what is to be recorded of them.

    boxes: at least one.
    engine: name and version of the engine that made them, where that is not the one that was asked.
    forced: no box had the score that is asked for, and the best one was taken all the same, as the
        paper's code does.
    """

    boxes: tuple[Box, ...]
    engine: str | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Ungrounded:
    """Why a site has no box or mask.

    reason: a code of `storage/reasons.yaml`, or `<engine>:<code>` in an engine of another package;
    detail: one sentence for a person.
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an engine could not process a text or a phrase, or why a proposal was rejected.

    reason: a code of `storage/reasons.yaml`, or `<engine>:<code>` in an engine of another package;
    detail: one sentence for a person.
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RulesAssertion:
    """An assertion by the rules, in place of a language model that failed at the sentence."""

    assertion: Assertion


PhraseAnswer = Assertion | RulesAssertion | Failure
"""What a filter answers about a phrase."""


class EngineAnswerError(ValueError):
    """An answer that the engine's protocol does not allow; the message says which."""


class Engine(Protocol):
    """Anything that carries out a step."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the output; the same fingerprint promises the same answers."""
        ...


class Cleaner(Engine, Protocol):
    """Drops or rewrites what one image cannot show, and keeps the finding itself."""

    def clean(self, texts: Sequence[str]) -> Sequence[CleanedText | Failure]:
        """Clean section texts, order kept."""
        ...


class Extractor(Engine, Protocol):
    """Finds the phrases that name a target."""

    def extract(self, texts: Sequence[str]) -> Sequence[Sequence[Phrase | Failure] | Failure]:
        """The phrases of each cleaned section text, in order of start, never overlapping.

        A failure among them is a proposal that could not be accepted, such as words that the text
        does not hold; a failure in their place means that the text could not be done at all.
        """
        ...


class AssertionClassifier(Engine, Protocol):
    """Tells whether the text states a phrase's target as present."""

    def classify(
        self, texts: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> Sequence[Sequence[PhraseAnswer]]:
        """One assertion per phrase of each text, order kept."""
        ...


@dataclass(frozen=True)
class TextEngines:
    """One engine per text step."""

    cleaner: Cleaner
    extractor: Extractor
    filter: AssertionClassifier


class Detector(Engine, Protocol):
    """Puts boxes on a radiograph."""

    def detect(
        self, image: Radiograph, sites: Sequence[Site]
    ) -> Sequence[Sequence[Box] | Detection | Ungrounded]:
        """One answer per site, order kept; a list of boxes is never empty."""
        ...


@runtime_checkable
class BatchDetector(Detector, Protocol):
    """A detector that takes several radiographs at a time, as on a GPU."""

    @property
    def batch_size(self) -> int:
        """Radiographs at a time, those of several studies of a shard together."""
        ...

    def detect_batch(
        self, images: Sequence[tuple[Radiograph, Sequence[Site]]]
    ) -> Sequence[Sequence[Sequence[Box] | Detection | Ungrounded]]:
        """What `detect` answers for each radiograph and its sites, order kept."""
        ...


class Segmenter(Engine, Protocol):
    """Puts masks on a CT volume."""

    def segment(self, volume: Volume, sites: Sequence[Site]) -> Iterable[Segmentation | Ungrounded]:
        """One answer per site, order kept; a mask is never empty.

        An iterator that makes each mask when it is asked for keeps memory at one mask.
        """
        ...
