"""What a phrase of an answer points at: boxes and a mask on the grid of the image's own file.

Anatomy is grounded by a mask, an abnormality by boxes (section 3.1 of the paper); a phrase that
the taxonomy does not know by both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.data.images import Frame
from model.inference.prompts import Pointing
from model.network.localization.localizer import Localization
from storage.masks import encode_mask
from taxonomy.matcher import Matcher
from taxonomy.reading import Category
from taxonomy.targets import Taxonomy


@dataclass(frozen=True)
class Instance:
    """One box.

    corners: (2, 3), lowest and highest along the axes of the file, in voxels, half-open; a
        radiograph's are (slice, row, column).
    score: the probability that it stands for an instance.
    """

    corners: NDArray[np.float64]
    score: float


@dataclass(frozen=True)
class Mask:
    """A mask on the grid of the file, encoded by `storage.masks`: many of them fit in memory."""

    encoded: bytes
    voxel_count: int


@dataclass(frozen=True)
class Region:
    """A phrase, `text[start:end]` in code points, and what it points at.

    target, category: what the taxonomy calls it; None if it does not know the phrase.
    instances: None if the phrase is not grounded by boxes; most probable first.
    mask: None if it is not grounded by a mask.
    """

    start: int
    end: int
    phrase: str
    target: str | None
    category: Category | None
    instances: tuple[Instance, ...] | None = None
    mask: Mask | None = None


class Pointer:
    """Turns what the localiser says of an answer's phrases into regions.

    Args:
        taxonomy: decides what a phrase is grounded by.
        pointing: overrules that.
        threshold: the probability above which a box counts.
    """

    def __init__(
        self, taxonomy: Taxonomy, pointing: Pointing = "by-category", threshold: float = 0.5
    ) -> None:
        self._taxonomy = taxonomy
        self._matcher = Matcher(taxonomy)
        self._pointing = pointing
        self._threshold = threshold

    @property
    def uses_masks(self) -> bool:
        """Whether any phrase can be grounded by a mask."""
        return self._pointing != "boxes"

    @property
    def uses_boxes(self) -> bool:
        """Whether any phrase can be grounded by boxes."""
        return self._pointing != "masks"

    def point(
        self,
        text: str,
        spans: Sequence[tuple[int, int]],
        localization: Localization,
        frame: Frame,
    ) -> list[Region]:
        """Ground the phrases of one answer; empty ones are left out.

        Args:
            text: the answer without brackets.
            spans: where its phrases are, in code points.
            localization: one row for each span.
            frame: of the prepared image that was localised in.
        """
        return [
            self._region(text, span, localization, index, frame)
            for index, span in enumerate(spans)
            if text[slice(*span)].strip()
        ]

    def target_of(self, phrase: str) -> str | None:
        """The target whose name or synonym takes up most of a phrase."""
        found = self._matcher.find(phrase)
        longest = max(found, key=lambda match: match.end - match.start, default=None)
        return None if longest is None else longest.target

    def _region(
        self,
        text: str,
        span: tuple[int, int],
        localization: Localization,
        index: int,
        frame: Frame,
    ) -> Region:
        start, end = _trimmed(text, span)
        target = self.target_of(text[start:end])
        category = self._taxonomy[target].category if target else None
        by_mask, by_boxes = self._grounded_by(category)
        instances, mask = None, None
        if by_boxes and localization.boxes is not None and localization.presence_logits is not None:
            scores = localization.presence_logits[index].float().sigmoid()
            instances = self._instances(localization.boxes[index], scores, frame)
        if by_mask and localization.mask_logits is not None:
            voxels = frame.mask_to_file(localization.mask_logits[index])
            mask = Mask(encode_mask(voxels), int(voxels.sum()))
        return Region(start, end, text[start:end], target, category, instances, mask)

    def _grounded_by(self, category: Category | None) -> tuple[bool, bool]:
        if self._pointing == "by-category":
            return category != "abnormality", category != "anatomy"
        return self.uses_masks, self.uses_boxes

    def _instances(self, boxes: Tensor, scores: Tensor, frame: Frame) -> tuple[Instance, ...]:
        order = scores.argsort(descending=True)
        corners = frame.boxes_to_file(boxes[order])
        return tuple(
            Instance(box, score)
            for box, score in zip(corners, scores[order].tolist(), strict=True)
            if score > self._threshold
        )


def _trimmed(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """A span without the space that a model writes inside its brackets."""
    phrase = text[slice(*span)]
    start = span[0] + len(phrase) - len(phrase.lstrip())
    return start, start + len(phrase.strip())
