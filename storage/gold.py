"""What people marked in a study: phrases, boxes, masks, and questions with their answers.

A data set calls things by its own names; its declaration maps them to targets of the taxonomy.
Pixels and voxels are those of the stored image, as in `storage.records`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from storage.records import AnyBox, Assertion, Laterality, Mask


@dataclass(frozen=True, slots=True)
class GoldPhrase:
    """Words about the image that a person wrote or marked.

    phrase_id: unique in the study; boxes and masks refer to it.
    label: what the data set files the words under; None if it has no classes.
    target: the label's target; None if the taxonomy has none.
    image_id: None if the words are about the whole study.
    """

    phrase_id: str
    phrase: str
    label: str | None = None
    target: str | None = None
    assertion: Assertion = "present"
    image_id: str | None = None
    annotator: str | None = None

    def to_row(self) -> dict[str, Any]:
        """The columns of `gold_phrases` beyond the key of the study."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class GoldBox:
    """A box that people drew.

    box: its score says nothing and is not stored.
    label, target: as of a phrase.
    laterality: the side that the label names, where the target does not.
    phrase_id: the phrase that it belongs to, if any.
    instance: 0, 1, … among the boxes of one image and label.
    annotator: who drew it; of a fused box, the method.
    readers: how many people drew it.
    """

    image_id: str
    box: AnyBox
    label: str
    target: str | None = None
    laterality: Laterality | None = None
    phrase_id: str | None = None
    instance: int = 0
    annotator: str | None = None
    readers: int = 1

    def to_row(self) -> dict[str, Any]:
        """The columns of `gold_boxes` beyond the key of the study."""
        corners = self.box.to_row()
        corners.pop("score")
        return _own_columns(self, "box") | corners


@dataclass(frozen=True, slots=True)
class GoldMask:
    """A mask that people drew or corrected; its fields are those of a `GoldBox`.

    One without voxels says that people looked for the label and found none of it.
    """

    image_id: str
    mask: Mask
    label: str
    target: str | None = None
    laterality: Laterality | None = None
    phrase_id: str | None = None
    instance: int = 0
    annotator: str | None = None
    readers: int = 1

    def to_row(self) -> dict[str, Any]:
        """The columns of `gold_masks` beyond the key of the study."""
        voxels = self.mask.to_row()
        voxels.pop("score")
        return _own_columns(self, "mask") | voxels


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image.

    position: 0, 1, … in the conversation about the image.
    answers: each of them counts as right.
    question_type, answer_type: as the data set names them.
    """

    image_id: str
    position: int
    question: str
    answers: tuple[str, ...]
    question_type: str | None = None
    answer_type: str | None = None

    def to_row(self) -> dict[str, Any]:
        """The columns of `questions` beyond the key of the study."""
        return asdict(self) | {"answers": list(self.answers)}


@dataclass(frozen=True, slots=True)
class Gold:
    """Everything that people marked in one study."""

    phrases: tuple[GoldPhrase, ...] = ()
    boxes: tuple[GoldBox, ...] = ()
    masks: tuple[GoldMask, ...] = ()
    questions: tuple[Question, ...] = ()

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Rows by table, beyond the key of the study."""
        return {
            "gold_phrases": [phrase.to_row() for phrase in self.phrases],
            "gold_boxes": [box.to_row() for box in self.boxes],
            "gold_masks": [mask.to_row() for mask in self.masks],
            "questions": [question.to_row() for question in self.questions],
        }


GOLD_TABLES = ("gold_phrases", "gold_boxes", "gold_masks", "questions")
"""The tables of what people marked."""


def _own_columns(item: GoldBox | GoldMask, without: str) -> dict[str, Any]:
    return {name: getattr(item, name) for name in item.__slots__ if name != without}
