"""What an engine is: one small protocol a step, and the values that cross it.

An engine works on plain Python values and numpy arrays; the steps (`tasks.clean`,
`tasks.extract`, …) carry them to and from Arrow. Engines are chosen by configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from storage.images.types import Radiograph, Volume

Assertion = Literal["present", "absent", "uncertain"]
Match = Literal["exact", "levelled", "fuzzy"]
"""How the words of a phrase were found in the text: as they are, case and white space aside, or
by likeness, as when a model misspells them."""

Laterality = Literal["left", "right", "bilateral"]

Fingerprint = Mapping[str, str]
"""What decides an engine's output, recorded in every manifest; `name` and `version` always."""


@dataclass(frozen=True, slots=True)
class CleanedText:
    """One section after cleaning; `removed` holds the passages dropped or rewritten."""

    text: str
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Modifiers:
    """What the words around a target say of side, zone and number.

    `count` is the least number of instances stated ("two nodules", "several nodules": 2).
    """

    laterality: Laterality | None = None
    zones: tuple[str, ...] = ()
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that name a target: `text[start:end]`, code points, half-open."""

    start: int
    end: int
    target: str
    modifiers: Modifiers = Modifiers()
    match: Match = "exact"


@dataclass(frozen=True, slots=True)
class Site:
    """A target to localize and where the report says it is."""

    target: str
    modifiers: Modifiers = Modifiers()


@dataclass(frozen=True, slots=True)
class Box:
    """A box in pixels of the stored image, half-open, origin at the top left; score 0 to 1."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    score: float


@dataclass(frozen=True, slots=True)
class Mask:
    """A boolean mask (x, y, z) on the grid of the volume it was asked for; score 0 to 1."""

    voxels: NDArray[np.bool_]
    score: float


@dataclass(frozen=True, slots=True)
class Ungrounded:
    """Why a site has no box or mask: a reason code and a sentence for a person.

    Codes: `no_image`, `image_not_found`, `image_unreadable`, `geometry_missing`,
    `view_not_supported`, `target_not_supported`, `registration_failed`, `not_found`,
    `outside_field_of_view`, `image_unsupported`.
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an engine could not do a text or a phrase, or what it proposed in vain.

    reason: a short code to count by; detail: one sentence for a person.
    """

    reason: str
    detail: str


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
    ) -> Sequence[Sequence[Assertion | Failure]]:
        """One assertion per phrase of each text, order kept."""
        ...


class Detector(Engine, Protocol):
    """Puts boxes on a radiograph."""

    def detect(self, image: Radiograph, sites: Sequence[Site]) -> list[list[Box] | Ungrounded]:
        """One answer per site, order kept; a list of boxes is never empty."""
        ...


class Segmenter(Engine, Protocol):
    """Puts masks on a CT volume."""

    def segment(self, volume: Volume, sites: Sequence[Site]) -> Iterable[Mask | Ungrounded]:
        """One answer per site, order kept; a mask is never empty.

        An iterator that makes each mask when it is asked for keeps memory at one mask.
        """
        ...
