"""How well the cases are known: what the saved model answers, scored on the grids of the files."""

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
"""Of a box that was not found: the worst there is."""

MAX_NEW_TOKENS = 200
"""More than any answer to learn has."""


@dataclass(frozen=True)
class Score:
    """How well a phrase's regions agree with the truth.

    dice: of the mask in the prepared image, which is what was learned; None if it has no mask.
    dice_in_file: the same on the voxels of the file, finer than the model can see.
    giou: of each true box with the one that was found for it, on the grid of the file.
    false_boxes: boxes beyond those.
    """

    phrase: str
    dice: float | None
    dice_in_file: float | None
    giou: tuple[float, ...]
    false_boxes: int


@dataclass(frozen=True)
class Examined:
    """An exchange, what the model answers now, and a score for each phrase to learn."""

    case: Case
    exchange: Exchange
    prediction: Prediction
    scores: tuple[Score, ...]

    @property
    def says_it(self) -> bool:
        """Whether the text is the one to learn, to the letter, brackets and all."""
        answered = [tag.phrase for tag in self.prediction.tags]
        learned = [truth.phrase for truth in self.exchange.truths]
        return self.prediction.text == strip(self.exchange.answer) and answered == learned

    def picture(self) -> Image.Image:
        """The image with the regions of the answer, as far as they are what was taught."""
        taught = {truth.phrase: truth for truth in self.exchange.truths}
        tags = [
            replace(
                tag,
                grounding=replace(
                    tag.grounding,
                    mask=None if taught[tag.phrase].mask is None else tag.grounding.mask,
                    boxes=None if taught[tag.phrase].boxes is None else tag.grounding.boxes,
                ),
            )
            for tag in self.prediction.tags
            if tag.phrase in taught
        ]
        return draw(self.prediction.source, tags)


def examine(
    model: VividMedForCausalLM,
    processor: VividMedProcessor,
    cases: Sequence[Case],
    pointer: Pointer,
) -> Iterator[Examined]:
    """Ask the model everything that it was taught, as a user would: a file and a question.

    Args:
        model: loaded from where it was saved.
        processor: of the model.
        cases: what it was taught.
        pointer: asks for masks and boxes of every phrase.
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
            yield Examined(case, exchange, prediction, _scores(case, exchange, prediction))


def _scores(case: Case, exchange: Exchange, prediction: Prediction) -> tuple[Score, ...]:
    """A phrase that the answer does not have in brackets is as bad as one in the wrong place."""
    left = list(prediction.tags)
    scores = []
    for truth in exchange.truths:
        found = next((tag for tag in left if tag.phrase == truth.phrase), None)
        if found is not None:
            left.remove(found)
        scores.append(score(truth, found, case.frame))
    return tuple(scores)


def score(truth: Truth, found: Tag | None, frame: Frame) -> Score:
    """Compare what was found with what is true; boxes are paired so that they agree best."""
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
        rows, columns = linear_sum_assignment(-giou)
        paired[rows] = giou[rows, columns]
    return paired
