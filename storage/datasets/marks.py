"""What readers of gold marks share: the target that a label names, and boxes checked on the image.

A mark that cannot be used is left out of its study with a reason; the study goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from storage.images.loading import describe_image
from storage.images.types import ImageDescription, ImageError
from storage.records import Box
from storage.rejects import Reject

_LEAST_INSIDE = 0.5
"""Share of a box that must lie on the image. People draw a little over the edge; a box of which
less is inside was drawn in another frame, such as that of a smaller copy."""


_ROUNDED_PX = 1.0
"""Pixels over the edge that come of rounding, or of counting a box's last pixel as included."""


class MarkError(Exception):
    """A mark that cannot be used: a reason code and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def reject(self, study_id: str, record: str, image_id: str | None = None) -> Reject:
        """The mark as a reject of its study."""
        return Reject(study_id, record, self.reason, f"{record}: {self}", image_id)


def target_of(targets: Mapping[str, str | None], label: str) -> str | None:
    """The target that a declaration gives a label.

    Raises:
        MarkError: if the declaration does not list it: a new release, or a misspelling.
    """
    try:
        return targets[label]
    except KeyError:
        raise MarkError("label_not_declared", f"{label!r} is not among the targets") from None


def report_of(sentences: Iterable[str]) -> str:
    """The sentences as one section, each once and with a full stop."""
    ended = (s if s.endswith((".", "!", "?")) else f"{s}." for s in map(str.strip, sentences) if s)
    return " ".join(dict.fromkeys(ended))


def number(text: str) -> float:
    """A finite number in a cell.

    Raises:
        MarkError: if it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MarkError("mark_unreadable", f"{text!r} is no number")
    return value


class PlacedBox(NamedTuple):
    """A box on its image, and what was cut off, if that is more than rounding."""

    box: Box
    cut: MarkError | None


def box_on_image(corners: Sequence[float], shape: tuple[int, ...] | None) -> PlacedBox:
    """A box that a person drew, cut at the edges of the image.

    Args:
        corners: x_min, y_min, x_max, y_max in pixels, half-open.
        shape: rows and columns; None where the image is not there: only 0 is an edge then.

    Raises:
        MarkError: if it is reversed, empty, or mostly outside of the image.
    """
    x_min, y_min, x_max, y_max = corners
    said = " ".join(f"{corner:g}" for corner in corners)
    if x_max < x_min or y_max < y_min:
        raise MarkError("box_reversed", f"the box {said} ends before it begins")
    if x_max == x_min or y_max == y_min:
        raise MarkError("box_empty", f"the box {said} has no area")
    rows, columns = shape if shape is not None else (math.inf, math.inf)
    left, top = max(x_min, 0.0), max(y_min, 0.0)
    right, bottom = min(x_max, columns), min(y_max, rows)
    inside = max(right - left, 0.0) * max(bottom - top, 0.0)
    if inside < _LEAST_INSIDE * (x_max - x_min) * (y_max - y_min):
        size = "" if shape is None else f" of {columns} × {rows} pixels"
        raise MarkError("box_outside_image", f"the box {said} lies outside of the image{size}")
    over = max(left - x_min, top - y_min, x_max - right, y_max - bottom)
    cut = None
    if over > _ROUNDED_PX:
        detail = f"the box {said} reaches {over:.4g} pixels over the edge of the image and is cut"
        cut = MarkError("box_cut", detail)
    return PlacedBox(Box(left, top, right, bottom, 1.0), cut)


def described(path: Path) -> ImageDescription | None:
    """What the headers of an image say; None where it is not there or cannot be read.

    The stage that opens it sets it aside with its reason.
    """
    try:
        return describe_image(path)
    except ImageError:
        return None
