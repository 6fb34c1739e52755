"""Outlines of the two lung fields: closed curves with anatomical landmarks.

A *lung field* is the lung visible on a frontal radiograph: the aerated part lateral to the heart
and above the dome of the diaphragm, without the lung hidden behind them. Its outline runs from
the apex down the lateral wall to the costophrenic angle, along the diaphragm to the cardiophrenic
angle, and up the medial (mediastinal) border back to the apex. The order is the same on both
sides, so that an index means the same landmark in every patient.

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

BoxXYXY = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max in pixels of an image, half-open, not yet clipped to it."""

Share = tuple[float, float]
"""An interval of a lung field's height (0 apex to 1 base) or width (0 lateral to 1 medial)."""

Frame = NDArray[np.float64]
"""(…, 4): lateral x, medial x, top y, bottom y of a lung field."""

LATERAL_POINTS, DIAPHRAGM_POINTS, MEDIAL_POINTS = 36, 24, 36
"""Landmarks per border. The diaphragm is the shortest border, about two thirds of the others."""

APEX = 0
COSTOPHRENIC = LATERAL_POINTS
CARDIOPHRENIC = COSTOPHRENIC + DIAPHRAGM_POINTS
LATERAL, DIAPHRAGM, MEDIAL = (
    slice(APEX, COSTOPHRENIC),
    slice(COSTOPHRENIC, CARDIOPHRENIC),
    slice(CARDIOPHRENIC, CARDIOPHRENIC + MEDIAL_POINTS),
)
"""Indices of the landmarks of the three corners, and of the borders between them."""

PIXEL_CENTER = 0.5
"""The center of the first pixel, in px: image points count from the pixel's corner."""

TRACE_PADDING_PX, TRACE_SIGMA_PX = 8, 2.0
"""Margin around a mask and Gaussian smoothing of its border before it is traced. The smoothing
removes the staircase of the voxels; the margin is four sigma, so that the curve stays closed."""

MASK_LEVEL = 0.5
"""Level of a smoothed 0/1 mask at its border."""

TINY = 1e-9
"""Keeps a division by the length of a zero vector finite."""


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
    smooth = ndimage.gaussian_filter(np.pad(field, TRACE_PADDING_PX).astype(float), TRACE_SIGMA_PX)
    contour = max(measure.find_contours(smooth, MASK_LEVEL), key=len)
    # The last point repeats the first. find_contours puts pixel centers on whole numbers.
    curve = contour[:-1, ::-1] - (TRACE_PADDING_PX - PIXEL_CENTER)
    u, v = to_unit(curve, frame_of(curve, side)).T
    # Apex: topmost. Costophrenic angle: low and lateral. Cardiophrenic angle: low and medial.
    apex, costophrenic, cardiophrenic = (int(np.argmax(score)) for score in (-v, v - u, v + u))
    # The landmarks are numbered in this direction; a curve that runs the other way is reversed.
    if (costophrenic - apex) % len(curve) > (cardiophrenic - apex) % len(curve):
        curve = curve[::-1]
        apex, costophrenic, cardiophrenic = (
            len(curve) - 1 - corner for corner in (apex, costophrenic, cardiophrenic)
        )
    return np.concatenate(
        [
            _resample(_arc(curve, apex, costophrenic), LATERAL_POINTS),
            _resample(_arc(curve, costophrenic, cardiophrenic), DIAPHRAGM_POINTS),
            _resample(_arc(curve, cardiophrenic, apex), MEDIAL_POINTS),
        ]
    )


def _arc(curve: Points, start: int, stop: int) -> Points:
    return np.roll(curve, -start, axis=0)[: (stop - start) % len(curve) + 1]


def _resample(arc: Points, count: int) -> Points:
    """`count` points equally spaced along an arc, from its first point to short of its last."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(arc, axis=0), axis=1))])
    positions = np.linspace(0, length[-1], count, endpoint=False)
    return np.column_stack([np.interp(positions, length, arc[:, axis]) for axis in (0, 1)])


def frame_of(outline: Points, side: Side) -> Frame:
    """The bounding frame of an outline."""
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


def medial_border(fields: LungFields, side: Side, height: Share) -> Points:
    """Points (n, 2) of a lung's mediastinal border between two shares of its height.

    The whole border where no point lies between them.
    """
    points = fields[side][MEDIAL]
    v = to_unit(points, frame_of(fields[side], side))[:, 1]
    chosen = points[(v >= height[0]) & (v <= height[1])]
    return chosen if len(chosen) else points


def outward_normals(outlines: Points) -> Points:
    """Unit normals (…, n, 2) that point out of closed curves (…, n, 2)."""
    following, preceding = np.roll(outlines, -1, axis=-2), np.roll(outlines, 1, axis=-2)
    tangent = following - preceding
    normal = np.stack([tangent[..., 1], -tangent[..., 0]], axis=-1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), TINY)
    x, y = outlines[..., 0], outlines[..., 1]
    # Twice the signed area (shoelace formula): its sign is the curve's orientation.
    signed_area = np.sum(x * following[..., 1] - following[..., 0] * y, axis=-1)
    outward: Points = normal * np.sign(signed_area)[..., None, None]
    return outward


def fill(outline: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask (rows, columns) of the pixels whose center is inside an outline."""
    mask: NDArray[np.bool_] = draw.polygon2mask(shape, outline[:, ::-1] - PIXEL_CENTER)
    return mask
