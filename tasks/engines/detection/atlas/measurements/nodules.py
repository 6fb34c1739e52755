"""Nodules in the lung fields: round, bright spots with contrast in every direction.

The blob detector is the determinant of the Hessian over scales (Lindeberg 1998). A rib or a vessel
is a ridge: it is curved along one direction only, so the determinant and the ratio of the
curvatures exclude it. A spot must also be brighter than the ring around it in most directions.
Spots at the hilum are excluded unless the report names it: vessels seen end-on look like nodules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.engines.detection.atlas.lung_fields.edges import SIDE_PX, shrink
from tasks.engines.detection.atlas.lung_fields.outlines import (
    PIXEL_CENTER,
    SIDES,
    LungFields,
    Side,
    fill,
    frame_of,
    to_unit,
)

RADII = np.geomspace(0.06, 0.16, 11)
"""Radii of the blobs, in shares of a lung's width (about 100 mm in an adult), 10 % apart."""

BALL_PER_BLOB = 4 / 3
"""Radius of a ball over that of its blob: its projection fades to the edge (measured: 3/4)."""

LEAST_CURVATURE_RATIO = 0.25
"""Smaller over larger curvature of a spot; a ridge has 0, a circular spot 1."""

LEAST_STRENGTH = 0.3
"""Contrast of a maximum worth examining, in standard deviations of the flattened lungs."""

PEAK_WINDOW = (3, 9, 9)
"""A maximum is the highest within one scale and four pixels."""

SURE, POSSIBLE = 0.6, 0.5
"""Salience from which a spot counts, and from which it does where the report states more nodules.

No spot outside the hila of the two nodule-free projections reaches 0.5; seven of the large
nodules of the real radiograph, and one crossing of ribs, exceed 0.6.
"""

SALIENCE_RADIUS, SALIENCE_POWER = 0.1, 0.5
"""Radius (in lung widths) at which salience equals contrast, and how it grows with the radius:
noise and vessels make small spots, few things but nodules large ones."""

FLATTENING_SIGMA = 0.25
"""Sigma of the background that is subtracted, in lung widths: wider than any spot looked for."""

LEAST_DEPTH = 0.5
"""Distance of a spot's center from the lung's border, in radii: nodules may touch the pleura."""

DISC_RADII, RING_RADII = 0.8, (1.15, 1.7)
"""The disc and the ring that are compared, in radii of the blob; its blurred edge is in neither."""

LEAST_RING_SEEN = 0.3
"""Share of the ring that must lie in the lungs for a comparison."""

LEAST_BRIGHTER = 0.8
"""Share of the ring's pixels that are darker than the disc's median."""

DIRECTIONS, LEAST_DIRECTIONS = 8, 0.7
"""Sectors of the ring, and the share of them in which it must be darker: a nodule
that a rib crosses is brighter in six of eight."""

SECTOR_CONTRAST = 0.3
"""How much darker a sector must be, in standard deviations of the flattened lungs."""

SECTOR_PIXELS, UNSEEN_SECTOR = 3, 0.5
"""A sector of no more pixels in the lungs counts as half darker."""

HILAR_WIDTH, HILAR_HEIGHT = 0.62, (0.15, 0.8)
"""Where the hilar vessels lie, in shares of the lung field: medial to the first, between these."""

DISTINCT_RADII = 0.8
"""Two spots closer than this, in radii of the larger one, are one."""

TINY, TINY_WEIGHT = 1e-9, 1e-3
"""Keep the divisions by a blank lung's spread, and by the weight far outside the lungs, finite."""


@dataclass(frozen=True)
class Spot:
    """A round spot: center and radius in pixels of the image; u, v in its lung's own frame.

    salience: contrast in standard deviations of the flattened lungs, weighted by roundness and
        size.
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
        """Whether the spot lies where the hilar vessels are."""
        return self.u > HILAR_WIDTH and HILAR_HEIGHT[0] < self.v < HILAR_HEIGHT[1]


def find_spots(pixels: NDArray[np.float32], fields: LungFields) -> list[Spot]:
    """Spots of at least `POSSIBLE` salience, most salient first, hilar ones included."""
    scale = SIDE_PX / max(pixels.shape)
    image = shrink(pixels)
    small_fields = fields.moved(scale, (0.0, 0.0))
    shape = (image.shape[0], image.shape[1])
    lungs = fill(small_fields.right, shape) | fill(small_fields.left, shape)
    width = float(np.mean([np.ptp(small_fields[side][:, 0]) for side in SIDES]))
    flat = _flatten(image, lungs, FLATTENING_SIGMA * width)
    # At the border, the chest wall looks like a bright spot.
    depth = ndimage.distance_transform_edt(lungs)
    spots: list[Spot] = []
    for strength, radius, x, y in sorted(_peaks(flat, lungs, RADII * width), reverse=True):
        salience = strength * (radius / width / SALIENCE_RADIUS) ** SALIENCE_POWER
        if salience < POSSIBLE or depth[y, x] < LEAST_DEPTH * radius:
            continue
        if _has_contrast(flat, lungs, x, y, radius):
            spots.append(_spot(small_fields, x, y, radius, salience))
    enlarge = 1 / scale
    spots.sort(key=lambda spot: -spot.salience)
    return [
        replace(spot, x=spot.x * enlarge, y=spot.y * enlarge, radius=spot.radius * enlarge)
        for spot in _distinct(spots)
    ]


def _flatten(
    image: NDArray[np.float64], lungs: NDArray[np.bool_], sigma: float
) -> NDArray[np.float64]:
    """The lungs without their background, in standard deviations of the rest; 0 outside."""
    flat = np.where(lungs, image - _blur_inside(image, lungs, sigma), 0.0)
    flattened: NDArray[np.float64] = flat / (flat[lungs].std() + TINY)
    return flattened


def _blur_inside(
    image: NDArray[np.float64], lungs: NDArray[np.bool_], sigma: float
) -> NDArray[np.float64]:
    """Gaussian blur of the lungs' pixels alone (normalized convolution)."""
    weight = ndimage.gaussian_filter(lungs.astype(float), sigma)
    blurred = ndimage.gaussian_filter(image * lungs, sigma)
    inside: NDArray[np.float64] = blurred / np.maximum(weight, TINY_WEIGHT)
    return inside


def _peaks(
    flat: NDArray[np.float64], lungs: NDArray[np.bool_], radii: NDArray[np.float64]
) -> Iterator[tuple[float, float, int, int]]:
    """Strength, radius, x and y of the maxima over position and scale."""
    # The determinant of the Hessian of a disc is largest at sigma = radius / sqrt(2).
    strengths = np.stack([_roundness(flat, lungs, radius / np.sqrt(2)) for radius in radii])
    highest = ndimage.maximum_filter(strengths, size=PEAK_WINDOW)
    for scale, y, x in np.argwhere((strengths == highest) & (strengths > LEAST_STRENGTH)):
        yield float(strengths[scale, y, x]), float(radii[scale]), int(x), int(y)


def _roundness(
    flat: NDArray[np.float64], lungs: NDArray[np.bool_], sigma: float
) -> NDArray[np.float64]:
    """Scale-normalized root of the Hessian's determinant at bright, round maxima; 0 elsewhere."""
    # Outside the lungs stand the values next to them, or the border would make ridges of spots.
    filled = np.where(lungs, flat, _blur_inside(flat, lungs, sigma))
    smooth = ndimage.gaussian_filter(filled, sigma)
    dy, dx = np.gradient(smooth)
    dyy, dyx = np.gradient(dy)
    dxx = np.gradient(dx, axis=1)
    # Eigenvalues of the symmetric 2 × 2 Hessian: half the trace plus and minus the difference.
    half_trace = (dxx + dyy) / 2
    difference = np.hypot((dxx - dyy) / 2, dyx)
    strongest, weakest = half_trace - difference, half_trace + difference
    round_top = lungs & (weakest < 0) & (weakest <= LEAST_CURVATURE_RATIO * strongest)
    return np.where(round_top, 2 * sigma**2 * np.sqrt(np.maximum(strongest * weakest, 0)), 0.0)


def _has_contrast(
    flat: NDArray[np.float64], lungs: NDArray[np.bool_], x: int, y: int, radius: float
) -> bool:
    """Whether the disc is brighter than the ring around it, in most directions."""
    rows, columns = np.ogrid[: flat.shape[0], : flat.shape[1]]
    distance = np.hypot(rows - y, columns - x)
    ring = (distance > RING_RADII[0] * radius) & (distance < RING_RADII[1] * radius)
    seen = ring & lungs
    if seen.sum() < LEAST_RING_SEEN * ring.sum():
        return False
    level = np.median(flat[(distance < DISC_RADII * radius) & lungs])
    if np.mean(flat[seen] < level) < LEAST_BRIGHTER:
        return False
    ring_y, ring_x = np.nonzero(seen)
    angle = np.arctan2(ring_y - y, ring_x - x)
    sector = ((angle + np.pi) / (2 * np.pi) * DIRECTIONS).astype(int) % DIRECTIONS
    darker = [
        float(flat[seen][sector == i].mean() < level - SECTOR_CONTRAST)
        if (sector == i).sum() > SECTOR_PIXELS
        else UNSEEN_SECTOR
        for i in range(DIRECTIONS)
    ]
    return float(np.mean(darker)) >= LEAST_DIRECTIONS


def _spot(fields: LungFields, x: int, y: int, radius: float, salience: float) -> Spot:
    # The midline lies between the medial borders; the right lung is on the image's left.
    middle = (fields.right[:, 0].max() + fields.left[:, 0].min()) / 2
    side: Side = "right" if x < middle else "left"
    u, v = to_unit(np.array([[x + PIXEL_CENTER, y + PIXEL_CENTER]]), frame_of(fields[side], side))[
        0
    ]
    return Spot(
        x + PIXEL_CENTER,
        y + PIXEL_CENTER,
        radius * BALL_PER_BLOB,
        salience,
        side,
        float(u),
        float(v),
    )


def _distinct(spots: list[Spot]) -> list[Spot]:
    """Of spots that overlap, the most salient."""
    kept: list[Spot] = []
    for spot in spots:
        if all(
            np.hypot(spot.x - other.x, spot.y - other.y)
            > DISTINCT_RADII * max(spot.radius, other.radius)
            for other in kept
        ):
            kept.append(spot)
    return kept
