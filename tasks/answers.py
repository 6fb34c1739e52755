"""What engines answer, checked before it is stored: an engine may be anybody's program.

A proposal that cannot be right is rejected with a reason, as one that an engine rejects itself. An
answer that the protocol does not allow at all, such as one too few, ends the run.
"""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import get_args

import numpy as np

from storage.images.types import Volume
from storage.records import Assertion, Box, Mask, Phrase
from tasks.engines.protocols import (
    Engine,
    EngineAnswerError,
    Failure,
    Segmentation,
    Ungrounded,
)
from taxonomy.targets import Taxonomy

ROUNDING_PX = 1.0
"""A box may reach this far outside of the image, in px: detectors round, or work on a smaller copy
of the image. It is clipped; one that reaches further was meant for another image."""


def engine_label(engine: Engine) -> str:
    """Name and version, for people and for the records that the engine made."""
    return "{name} {version}".format(**engine.fingerprint)


def require_as_many(engine: Engine, answers: Sized, asked: Sized, what: str) -> None:
    """Check that there is one answer for each thing asked.

    Raises:
        EngineAnswerError: if there is not; nobody could tell which answer belongs to what.
    """
    if len(answers) != len(asked):
        raise EngineAnswerError(
            f"the engine {engine_label(engine)} gave {len(answers)} answers for {len(asked)} "
            f"{what}: it has to give one for each, in their order"
        )


def checked_box(box: Box, shape_yx: tuple[int, int]) -> Box | Ungrounded:
    """The box inside an image of that shape, or why it cannot be kept."""
    corners = (box.x_min, box.y_min, box.x_max, box.y_max)
    words = ", ".join(f"{corner:g}" for corner in corners)
    where = f"the box ({words})"
    if not all(math.isfinite(corner) for corner in corners):
        return Ungrounded("box_not_finite", f"{where} has a corner that is no finite number")
    if box.x_max < box.x_min or box.y_max < box.y_min:
        return Ungrounded("box_reversed", f"{where} ends before it begins")
    if not _is_probability(box.score):
        return _score_fault(where, box.score)
    rows, columns = shape_yx
    beyond = max(-box.x_min, -box.y_min, box.x_max - columns, box.y_max - rows)
    if beyond > ROUNDING_PX:
        size = f"{columns} × {rows} px"
        detail = f"{where} reaches {beyond:g} px outside of the image of {size}"
        return Ungrounded("box_outside_image", detail)
    x_min, y_min = max(0.0, float(box.x_min)), max(0.0, float(box.y_min))
    x_max, y_max = min(float(columns), float(box.x_max)), min(float(rows), float(box.y_max))
    if x_min >= x_max or y_min >= y_max:
        return Ungrounded("box_empty", f"{where} has no area inside the image")
    return Box(x_min, y_min, x_max, y_max, float(box.score))


def checked_mask(found: Segmentation, volume: Volume) -> Mask | Ungrounded:
    """The mask on the volume's grid, encoded, or why it cannot be kept."""
    voxels = np.asarray(found.voxels)
    if voxels.shape != volume.hu.shape:
        shapes = " and ".join(" × ".join(map(str, s)) for s in (voxels.shape, volume.hu.shape))
        return Ungrounded("mask_wrong_shape", f"mask and volume differ in shape: {shapes}")
    if voxels.dtype != np.bool_:
        return Ungrounded("mask_not_boolean", f"the mask's values are {voxels.dtype}, not boolean")
    if not voxels.any():
        return Ungrounded("mask_empty", "the mask has no voxel")
    if found.score is None:
        return Mask.of(voxels, volume.affine)
    if not _is_probability(found.score):
        return _score_fault("the mask", found.score)
    return Mask.of(voxels, volume.affine, float(found.score))


def checked_phrase(phrase: Phrase, text: str, taxonomy: Taxonomy) -> Phrase | Failure:
    """The phrase, or why it cannot be one of that text."""
    if not 0 <= phrase.start < phrase.end <= len(text):
        where = f"{phrase.start} to {phrase.end} of a text of {len(text)} characters"
        return Failure("span_outside_text", f"{phrase.target!r} was found at {where}")
    if phrase.target not in taxonomy:
        return Failure("unknown_target", f"{phrase.target!r} is not in the taxonomy")
    return phrase


def checked_assertion(assertion: Assertion) -> Assertion | Failure:
    """The assertion, or that it is none."""
    known = get_args(Assertion)
    if assertion in known:
        return assertion
    detail = f"{assertion!r} is no assertion; those are {', '.join(known)}"
    return Failure("assertion_unknown", detail)


def _is_probability(score: float) -> bool:
    return isinstance(score, float | int | np.floating) and 0 <= score <= 1


def _score_fault(what: str, score: object) -> Ungrounded:
    return Ungrounded("score_out_of_range", f"{what} has the score {score}, not 0 to 1")
