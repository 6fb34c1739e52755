"""Evaluation of the saved model on the cases, on the grids of the image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from benchmarks.overfit.data import Case, Exchange, Truth
from model.data.brackets import strip
from model.data.images import Frame
from model.data.processor import VividMedProcessor
from model.inference.overlays import draw
from model.inference.predict import Prediction, predict
from model.inference.regions import Pointer
from model.network.vividmed import VividMedForCausalLM
from storage.overlap import box_giou, dice
from storage.records import AnyBox, Tag

ABSENT_GIOU = -1.0
"""GIoU of a box that was not found: the lowest value."""

MAX_NEW_TOKENS = 200
"""More than the longest answer of the cases has."""


@dataclass(frozen=True)
class Score:
    """Agreement of a phrase's mask and boxes with the truth.

    dice: Dice of the mask in the prepared image, which training used; None if it has no mask.
    dice_in_file: Dice on the grid of the file, which is finer than the input of the model.
    giou: GIoU of each true box with the box matched to it, on the grid of the file.
    false_boxes: boxes that match no true box.
    """

    phrase: str
    dice: float | None
    dice_in_file: float | None
    giou: tuple[float, ...]
    false_boxes: int


@dataclass(frozen=True)
class Result:
    """An exchange, the answer of the model, and a score for each phrase of the exchange."""

    case: Case
    exchange: Exchange
    prediction: Prediction
    scores: tuple[Score, ...]

    @property
    def exact(self) -> bool:
        """Whether the text and its phrases equal those of the exchange."""
        predicted = [tag.phrase for tag in self.prediction.tags]
        expected = [truth.phrase for truth in self.exchange.truths]
        return self.prediction.text == strip(self.exchange.answer) and predicted == expected

    def picture(self) -> Image.Image:
        """The image with the masks and boxes of the kinds that were trained."""
        trained = {truth.phrase: truth for truth in self.exchange.truths}
        tags = [
            replace(
                tag,
                grounding=replace(
                    tag.grounding,
                    mask=None if trained[tag.phrase].mask is None else tag.grounding.mask,
                    boxes=None if trained[tag.phrase].boxes is None else tag.grounding.boxes,
                ),
            )
            for tag in self.prediction.tags
            if tag.phrase in trained
        ]
        return draw(self.prediction.source, tags)


def evaluate(
    model: VividMedForCausalLM,
    processor: VividMedProcessor,
    cases: Sequence[Case],
    pointer: Pointer,
) -> Iterator[Result]:
    """Run the model on every exchange as a user does, with a file and a question.

    Args:
        model: the saved model.
        processor: processor of the model.
        cases: the training cases.
        pointer: grounds every phrase by a mask and boxes.
    """
    for case in cases:
        for exchange in case.exchanges:
            (prediction,) = predict(
                model,
                processor,
                [case.path],
                exchange.question,
                pointer,
                max_new_tokens=MAX_NEW_TOKENS,
            )
            yield Result(case, exchange, prediction, _scores(case, exchange, prediction))


def _scores(case: Case, exchange: Exchange, prediction: Prediction) -> tuple[Score, ...]:
    """Score each phrase; one that is missing from the answer scores as empty mask and no boxes."""
    # An answer may repeat a phrase: each tag is scored once.
    left = list(prediction.tags)
    scores = []
    for truth in exchange.truths:
        found = next((tag for tag in left if tag.phrase == truth.phrase), None)
        if found is not None:
            left.remove(found)
        scores.append(score(truth, found, case.frame))
    return tuple(scores)


def score(truth: Truth, found: Tag | None, frame: Frame) -> Score:
    """Compare a tag with the truth; boxes are matched for the highest total GIoU."""
    in_model, in_file, giou, false_boxes = None, None, np.empty(0), 0
    if truth.mask is not None:
        mask = np.zeros_like(truth.mask)
        if found is not None and found.grounding.mask is not None:
            mask = found.grounding.mask.voxels
        in_file = dice(truth.mask, mask)
        in_model = dice(frame.mask_to_model(truth.mask).numpy(), frame.mask_to_model(mask).numpy())
    if truth.boxes is not None:
        boxes = found.grounding.boxes or () if found is not None else ()
        giou = _paired_giou(truth.boxes, boxes)
        false_boxes = max(0, len(boxes) - len(truth.boxes))
    return Score(truth.phrase, in_model, in_file, tuple(giou.tolist()), false_boxes)


def _paired_giou(truth: NDArray[np.float64], boxes: Sequence[AnyBox]) -> NDArray[np.float64]:
    paired = np.full(len(truth), ABSENT_GIOU)
    if boxes:
        found = np.stack([box.corners.ravel() for box in boxes])
        giou = box_giou(truth.reshape(-1, 1, 6), found)
        # The solver minimizes cost; GIoU is to be maximized.
        rows, columns = linear_sum_assignment(-giou)
        paired[rows] = giou[rows, columns]
    return paired
