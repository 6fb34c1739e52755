"""Outlines of the two lung fields: closed curves with anatomical landmarks.

A *lung field* is what a reader sees as lung on a frontal film: the air-filled part beside the
heart and above the diaphragm's dome, without the lung hidden behind them. Its outline runs from
the apex down the lateral wall to the costophrenic angle, along the diaphragm to the cardiophrenic
angle, and up the medial (mediastinal) border back to the apex, in this order on both sides, so
that equal indices are equal places in every patient.

Frames: image points are x, y in pixels (x to the right, y down; the patient's right lung is on
the image's left). A lung's own frame has u from 0 lateral to 1 medial and v from 0 apex to 1 base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import draw, measure

Side = Literal["right", "left"]
SIDES: tuple[Side, Side] = ("right", "left")

Points = NDArray[np.float64]
"""(…, n, 2): n points of two coordinates."""

Frame = NDArray[np.float64]
"""(…, 4): lateral x, medial x, top y, bottom y of a lung field."""

LATERAL, DIAPHRAGM, MEDIAL = slice(0, 36), slice(36, 60), slice(60, 96)
APEX, COSTOPHRENIC, CARDIOPHRENIC = 0, 36, 60


@dataclass(frozen=True)
class LungFields:
    """Outlines (96, 2) of both lung fields in pixels of one image, and how well they fit it.

    quality: share of the outline that lies on an edge of the image, 0 to 1.
    """

    right: Points
    left: Points
    quality: float

    def __getitem__(self, side: Side) -> Points:
        return self.right if side == "right" else self.left

    def moved(self, scale: float, shift_xy_px: tuple[float, float]) -> LungFields:
        """The same fields on an image resized by `scale` and then shifted."""
        return LungFields(
            self.right * scale + shift_xy_px, self.left * scale + shift_xy_px, self.quality
        )


def trace(field: NDArray[np.bool_], side: Side) -> Points:
    """Outline of one lung field from its mask (rows, columns)."""
    smooth = ndimage.gaussian_filter(np.pad(field, 8).astype(float), 2)
    # find_contours puts pixel centres on whole numbers; here they are at halves.
    curve = max(measure.find_contours(smooth, 0.5), key=len)[:-1, ::-1] - 7.5
    u, v = to_unit(curve, frame_of(curve, side)).T
    apex, costophrenic, cardiophrenic = (int(np.argmax(score)) for score in (-v, v - u, v + u))
    if (costophrenic - apex) % len(curve) > (cardiophrenic - apex) % len(curve):
        curve = curve[::-1]
        apex, costophrenic, cardiophrenic = (
            len(curve) - 1 - corner for corner in (apex, costophrenic, cardiophrenic)
        )
    return np.concatenate(
        [
            _resample(_arc(curve, apex, costophrenic), 36),
            _resample(_arc(curve, costophrenic, cardiophrenic), 24),
            _resample(_arc(curve, cardiophrenic, apex), 36),
        ]
    )


def _arc(curve: Points, start: int, stop: int) -> Points:
    return np.roll(curve, -start, axis=0)[: (stop - start) % len(curve) + 1]


def _resample(arc: Points, count: int) -> Points:
    """`count` points equally spaced along an arc, from its first point to short of its last."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(arc, axis=0), axis=1))])
    at = np.linspace(0, length[-1], count, endpoint=False)
    return np.column_stack([np.interp(at, length, arc[:, axis]) for axis in (0, 1)])


def frame_of(outline: Points, side: Side) -> Frame:
    """The frame that an outline fills."""
    (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
    lateral, medial = (left, right) if side == "right" else (right, left)
    return np.array([lateral, medial, top, bottom])


def to_unit(points: Points, frame: Frame) -> Points:
    """Image points in a lung's own frame."""
    lateral, medial, top, bottom = frame
    unit: Points = (points - [lateral, top]) / [medial - lateral, bottom - top]
    return unit


def from_unit(unit: Points, frames: Frame) -> Points:
    """Points (n, 2) of a lung's own frame in the image, for every frame (…, 4) at once."""
    origin, opposite = frames[..., None, 0::2], frames[..., None, 1::2]
    placed: Points = origin + unit * (opposite - origin)
    return placed


def outward_normals(outlines: Points) -> Points:
    """Unit normals (…, n, 2) that point out of closed curves (…, n, 2)."""
    following, preceding = np.roll(outlines, -1, axis=-2), np.roll(outlines, 1, axis=-2)
    tangent = following - preceding
    normal = np.stack([tangent[..., 1], -tangent[..., 0]], axis=-1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    x, y = outlines[..., 0], outlines[..., 1]
    turn = np.sum(x * following[..., 1] - following[..., 0] * y, axis=-1)
    outward: Points = normal * np.sign(turn)[..., None, None]
    return outward


def fill(outline: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask (rows, columns) of the pixels whose centre is inside an outline."""
    mask: NDArray[np.bool_] = draw.polygon2mask(shape, outline[:, ::-1] - 0.5)
    return mask
