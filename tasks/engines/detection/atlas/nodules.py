"""Nodules in the lung fields: round, bright spots that stand out in every direction.

The detector of blobs is the determinant of the Hessian over scales (Lindeberg 1998). A rib or a
vessel is a ridge: bright along one direction, so its smaller curvature is weak; the determinant
and the ratio of the curvatures leave it out. A spot must also be brighter than the ring around it
in most directions. Spots at the hilum are left out, unless asked for: vessels seen end-on there
look exactly like nodules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.engines.detection.atlas.edges import SIDE_PX, shrink
from tasks.engines.detection.atlas.outlines import SIDES, LungFields, Side, fill, frame_of, to_unit

RADII = np.geomspace(0.06, 0.16, 11)
"""Radii of the blobs looked for, as shares of a lung's width (about 100 mm in an adult)."""

BALL_PER_BLOB = 4 / 3
"""A ball's shadow fades to its edge, so its blob is smaller (measured: 0.75 of the diameter)."""

LEAST_CURVATURE_RATIO = 0.25
LEAST_BRIGHTER = 0.8
LEAST_DIRECTIONS = 0.7
DIRECTIONS = 8

SURE, POSSIBLE = 0.6, 0.5
"""Salience from which a spot counts; and from which it does when the report counts more nodules.

No spot outside the hila of the two nodule-free projections here reaches 0.5; seven of the large
nodules of the real film, and one crossing of ribs, exceed 0.6.
"""


@dataclass(frozen=True)
class Spot:
    """A round spot: centre and radius in pixels of the image, its lung and place in it.

    salience: contrast in spreads of the lung's own brightness, weighted by roundness and size.
    """

    x: float
    y: float
    radius: float
    salience: float
    side: Side
    u: float
    v: float

    @property
    def hilar(self) -> bool:
        """Whether the spot lies where the hilum's vessels are."""
        return self.u > 0.62 and 0.15 < self.v < 0.8


def find_spots(pixels: NDArray[np.float32], fields: LungFields) -> list[Spot]:
    """Spots of at least `POSSIBLE` salience, most salient first, hilar ones included."""
    scale = SIDE_PX / max(pixels.shape)
    image = shrink(pixels)
    small_fields = fields.moved(scale, (0.0, 0.0))
    shape = (image.shape[0], image.shape[1])
    lungs = fill(small_fields.right, shape) | fill(small_fields.left, shape)
    width = float(np.mean([np.ptp(small_fields[side][:, 0]) for side in SIDES]))
    flat = _flatten(image, lungs, 0.25 * width)
    depth = ndimage.distance_transform_edt(lungs)
    spots: list[Spot] = []
    for strength, radius, x, y in sorted(_peaks(flat, lungs, RADII * width), reverse=True):
        salience = strength * (radius / width / 0.1) ** 0.5
        if salience < POSSIBLE or depth[y, x] < 0.5 * radius:
            continue
        if _stands_out(flat, lungs, x, y, radius):
            spots.append(_spot(small_fields, x, y, radius, salience))
    spots.sort(key=lambda spot: -spot.salience)
    return [_rescale(spot, 1 / scale) for spot in _distinct(spots)]


def _flatten(
    image: NDArray[np.float64], lungs: NDArray[np.bool_], reach: float
) -> NDArray[np.float64]:
    """The lungs' brightness without its slow changes, in units of its spread; 0 outside."""
    flat = np.where(lungs, image - _blur_inside(image, lungs, reach), 0.0)
    flattened: NDArray[np.float64] = flat / (flat[lungs].std() + 1e-9)
    return flattened


def _blur_inside(
    image: NDArray[np.float64], lungs: NDArray[np.bool_], sigma: float
) -> NDArray[np.float64]:
    """Gaussian blur that takes nothing from outside the lungs (normalised convolution)."""
    weight = ndimage.gaussian_filter(lungs.astype(float), sigma)
    blurred = ndimage.gaussian_filter(image * lungs, sigma)
    inside: NDArray[np.float64] = blurred / np.maximum(weight, 1e-3)
    return inside


def _peaks(
    flat: NDArray[np.float64], lungs: NDArray[np.bool_], radii: NDArray[np.float64]
) -> Iterator[tuple[float, float, int, int]]:
    """Strength, radius, x and y of the maxima over place and scale."""
    strengths = np.stack([_roundness(flat, lungs, radius / np.sqrt(2)) for radius in radii])
    highest = ndimage.maximum_filter(strengths, size=(3, 9, 9))
    for level, y, x in np.argwhere((strengths == highest) & (strengths > 0.3)):
        yield float(strengths[level, y, x]), float(radii[level]), int(x), int(y)


def _roundness(
    flat: NDArray[np.float64], lungs: NDArray[np.bool_], sigma: float
) -> NDArray[np.float64]:
    """Scale-normalised root of the Hessian's determinant where the image is a bright, round top."""
    # The wall is filled with what is next to it, or every spot near it would be a ridge's end.
    filled = np.where(lungs, flat, _blur_inside(flat, lungs, sigma))
    smooth = ndimage.gaussian_filter(filled, sigma)
    dy, dx = np.gradient(smooth)
    dyy, dyx = np.gradient(dy)
    dxx = np.gradient(dx, axis=1)
    half_trace = (dxx + dyy) / 2
    difference = np.hypot((dxx - dyy) / 2, dyx)
    sharp, blunt = half_trace - difference, half_trace + difference
    round_top = lungs & (blunt < 0) & (blunt <= LEAST_CURVATURE_RATIO * sharp)
    return np.where(round_top, 2 * sigma**2 * np.sqrt(np.maximum(sharp * blunt, 0)), 0.0)


def _stands_out(
    flat: NDArray[np.float64], lungs: NDArray[np.bool_], x: int, y: int, radius: float
) -> bool:
    """Whether the disc is brighter than the ring around it, in most directions."""
    rows, columns = np.ogrid[: flat.shape[0], : flat.shape[1]]
    distance = np.hypot(rows - y, columns - x)
    ring = (distance > 1.15 * radius) & (distance < 1.7 * radius)
    seen = ring & lungs
    if seen.sum() < 0.3 * ring.sum():
        return False
    level = np.median(flat[(distance < 0.8 * radius) & lungs])
    if np.mean(flat[seen] < level) < LEAST_BRIGHTER:
        return False
    ring_y, ring_x = np.nonzero(seen)
    angle = np.arctan2(ring_y - y, ring_x - x)
    sector = ((angle + np.pi) / (2 * np.pi) * DIRECTIONS).astype(int) % DIRECTIONS
    darker = [
        float(flat[seen][sector == i].mean() < level - 0.3) if (sector == i).sum() > 3 else 0.5
        for i in range(DIRECTIONS)
    ]
    return float(np.mean(darker)) >= LEAST_DIRECTIONS


def _spot(fields: LungFields, x: int, y: int, radius: float, salience: float) -> Spot:
    middle = (fields.right[:, 0].max() + fields.left[:, 0].min()) / 2
    side: Side = "right" if x < middle else "left"
    u, v = to_unit(np.array([[x + 0.5, y + 0.5]]), frame_of(fields[side], side))[0]
    return Spot(x + 0.5, y + 0.5, radius * BALL_PER_BLOB, salience, side, float(u), float(v))


def _distinct(spots: list[Spot]) -> list[Spot]:
    """Of spots that share their place, the most salient."""
    kept: list[Spot] = []
    for spot in spots:
        if all(
            np.hypot(spot.x - other.x, spot.y - other.y) > 0.8 * max(spot.radius, other.radius)
            for other in kept
        ):
            kept.append(spot)
    return kept


def _rescale(spot: Spot, factor: float) -> Spot:
    place = (spot.x * factor, spot.y * factor, spot.radius * factor)
    return Spot(*place, spot.salience, spot.side, spot.u, spot.v)
