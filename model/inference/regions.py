"""From the localizer's output to tags: phrases with boxes and a mask on the grid of the file.

Anatomy is grounded by a mask, an abnormality by boxes (section 3.1 of the paper), a phrase that is
not in the taxonomy by both.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from model.data.images import Frame
from model.inference.prompts import Pointing
from model.network.localization.localizer import Localization
from storage.records import AnyBox, Box, Category, Grounding, Mask, Tag, VolumeBox
from taxonomy.matcher import Matcher
from taxonomy.targets import Taxonomy


class Pointer:
    """Turns the localizer's output for the phrases of an answer into tags.

    Args:
        taxonomy: gives the category of a phrase.
        pointing: grounds by category, or all phrases alike.
        threshold: boxes of a higher probability of presence are kept.
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
    ) -> list[Tag]:
        """Ground the phrases of one answer; empty phrases are left out.

        Args:
            text: the answer without brackets.
            spans: its phrases, in code points, half-open.
            localization: the output of the localizer, one row for each span.
            frame: maps the prepared image to the file.
        """
        return [
            self._tag(text, span, localization, index, frame)
            for index, span in enumerate(spans)
            if text[slice(*span)].strip()
        ]

    def target_of(self, phrase: str) -> str | None:
        """The target with the longest name or synonym in a phrase."""
        # The longest match is the most specific: "lung nodule" rather than "lung".
        found = self._matcher.find(phrase)
        longest = max(found, key=lambda match: match.end - match.start, default=None)
        return None if longest is None else longest.target

    def _tag(
        self,
        text: str,
        span: tuple[int, int],
        localization: Localization,
        index: int,
        frame: Frame,
    ) -> Tag:
        start, end = _trimmed(text, span)
        target = self.target_of(text[start:end])
        category = self._taxonomy[target].category if target else None
        by_mask, by_boxes = self._grounded_by(category)
        boxes, mask = None, None
        if by_boxes and localization.boxes is not None and localization.presence_logits is not None:
            scores = localization.presence_logits[index].float().sigmoid()
            boxes = self._boxes(localization.boxes[index], scores, frame)
        if by_mask and localization.mask_logits is not None:
            voxels = frame.mask_to_file(localization.mask_logits[index])
            mask = Mask.of(voxels, frame.source.affine)
        # An empty mask is a result, but shows nothing.
        found = boxes or (mask is not None and mask.voxel_count)
        grounding = Grounding(boxes, mask, None if found else "not_found")
        return Tag(start, end, text[start:end], target, category, grounding)

    def _grounded_by(self, category: Category | None) -> tuple[bool, bool]:
        if self._pointing == "by-category":
            # An unknown category is neither, and has both.
            return category != "abnormality", category != "anatomy"
        return self.uses_masks, self.uses_boxes

    def _boxes(self, boxes: Tensor, scores: Tensor, frame: Frame) -> tuple[AnyBox, ...]:
        """The boxes above the threshold, by decreasing probability."""
        order = scores.argsort(descending=True)
        box_type = Box if frame.source.affine is None else VolumeBox
        return tuple(
            box_type.from_corners(corners, score)
            for corners, score in zip(
                frame.boxes_to_file(boxes[order]), scores[order].tolist(), strict=True
            )
            if score > self._threshold
        )


def _trimmed(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """A span without the white space that a model writes inside its brackets."""
    phrase = text[slice(*span)]
    start = span[0] + len(phrase) - len(phrase.lstrip())
    return start, start + len(phrase.strip())
