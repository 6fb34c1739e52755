"""Find the lung fields of a frontal radiograph: fit a lung shape to its edges, then refine it.

1. A pair of lungs is searched over position and size in the image's edge field.
2. Frame and shape of each lung are refined for every height of its base. The best pair whose bases
   and apices agree is kept; alone, a lung may end at a row of nodules instead of the diaphragm.
3. Each outline is refined along its normals (`active_shape`).
4. The result is checked (`plausibility`): some fit is found in any picture.

The lung shape has two modes: *heart* blends the left lung between the reference patient's (0) and
the mirrored right lung (1); *dome* flattens the diaphragm (1 as in the reference, 0 straight).
Sizes and steps of the search are shares of the image or of a lung, chosen to cover the radiographs
of the inputs and their crops.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tasks.engines.detection.atlas.errors import NoLungFieldsError
from tasks.engines.detection.atlas.lung_fields.active_shape import refine
from tasks.engines.detection.atlas.lung_fields.edges import (
    COARSE_SCALES,
    FINE_SCALES,
    SIDE_PX,
    EdgeField,
    content,
    edge_field,
    normalize,
    shrink,
)
from tasks.engines.detection.atlas.lung_fields.outlines import (
    CARDIOPHRENIC,
    COSTOPHRENIC,
    DIAPHRAGM,
    DIAPHRAGM_POINTS,
    SIDES,
    Frame,
    LungFields,
    Points,
    Side,
    frame_of,
    from_unit,
    outward_normals,
    to_unit,
)
from tasks.engines.detection.atlas.lung_fields.plausibility import checked_lung_fields

COARSE = 4
"""The search runs on every fourth pixel (128 × 128 px); only the refinement sees all."""

SPARSE = slice(None, None, 2)
"""Every second landmark: enough to rank fits, at half the cost."""

LEAST_SIDE_PX, MOST_ASPECT = 64, 3
"""Shorter side of an image that can hold a chest, and the longer side over it."""

LEAST_SPREAD = 1e-3
"""Standard deviation of the pixel values (0 to 1) below which an image is blank."""

PAIR_WIDTHS, PAIR_HEIGHTS = np.linspace(0.5, 0.95, 10), np.linspace(0.4, 0.95, 12)
"""Sizes of both lungs together, in shares of the image: from a film with arms and abdomen to a
tightly collimated one."""

OVERHANG, POSITIONS = 0.02, 12
"""How far the lungs may leave the image, in shares of it; positions tried along each axis."""

SEARCH_HEARTS = (0.0, 0.5, 1.0)
PROFILE_DOMES = (0.3, 1.0)
HEARTS, DOMES = (0.0, 0.25, 0.5, 0.75, 1.0), (0.3, 0.6, 1.0)
"""Settings of the two modes: few while positions are searched, more in the last refinement."""

BASE_ABOVE, BASE_BELOW, BASE_HEIGHTS = 0.3, 0.8, 16
"""Heights of the base tried, from this far above to this far below the search's, in lung heights.
Further below: the edges of ribs and heart end a fit too high rather than too low."""

PROFILE_WIDTHS, PROFILE_TOPS = np.linspace(-0.12, 0.12, 9), np.linspace(-0.1, 0.1, 7)
PROFILE_LAST_WIDTHS = np.linspace(-0.06, 0.06, 9)
"""Moves of a lung's lateral and medial border, and of its top, in shares of its size."""

POLISH_REACHES, POLISH_STEPS = (0.06, 0.03, 0.015), 9
"""Largest moves of the last refinement, each half of the one before; moves per border."""

SIZE_PREFERENCE = 0.2
"""Edge support counts times (area share) to this power: a smaller lung finds edges more easily."""

ACROSS, TOP, ALONG = (0, 1), (2,), (2, 3)
"""Borders of a `Frame`: lateral and medial; top; top and bottom."""

STARTS = 2
"""Positions of the search that are refined."""

MIRROR_MARGIN = 1.2
"""A mirrored fit must be this much better to count: a slender, central heart fits both ways."""

UNEVENNESS_TOLERANCE, UNEVENNESS_COST = 0.05, 0.6
"""Height differences of bases and of apices beyond the tolerance (in lung heights: the right
diaphragm is normally some cm higher) cost this much score per lung height."""


@dataclass(frozen=True)
class Fit:
    """A unit shape in a frame, and how well the image's edges support it."""

    score: float
    frame: Frame
    shape: Points


@dataclass(frozen=True)
class Pair:
    """A right and a left lung fitted together; the score is comparable within one image."""

    score: float
    right: Fit
    left: Fit


def find_lung_fields(pixels: NDArray[np.float32], prior: LungFields) -> LungFields:
    """The lung fields of a radiograph, in its own pixels.

    Args:
        pixels: (rows, columns), bright is dense.
        prior: the atlas's lung fields, which give the shape.

    Raises:
        NoLungFieldsError: if nothing in the image is like a pair of lungs, or if it is turned.
    """
    # The edge of collimation or padding is stronger than any lung border.
    rows, columns = content(pixels)
    inner = pixels[rows, columns]
    least_side = max(LEAST_SIDE_PX, max(inner.shape) / MOST_ASPECT)
    if min(inner.shape) < least_side or inner.std() < LEAST_SPREAD:
        raise NoLungFieldsError("the image is blank, tiny or a narrow strip")
    small = shrink(inner)
    normalized = normalize(small)
    edges = edge_field(normalized, COARSE_SCALES)
    # Coarse edges for the search: ribs are blurred away, lung borders are not.
    pair = _fit_upright(edges.every(COARSE), prior)
    fine = edge_field(normalized, FINE_SCALES)
    right, left = (
        refine(from_unit(fit.shape, fit.frame) * COARSE, edges, fine)
        for fit in (pair.right, pair.left)
    )
    fields = checked_lung_fields(small, edges, right, left)
    scale = max(inner.shape) / SIDE_PX
    return fields.moved(scale, (float(columns.start or 0), float(rows.start or 0)))


def _fit_upright(edges: EdgeField, prior: LungFields) -> Pair:
    """The best pair of lungs in an image that is neither upside down nor mirrored.

    A mirrored film would swap every laterality. Dextrocardia looks the same, and is rejected with
    it.

    Raises:
        NoLungFieldsError: if the image is upside down or mirrored.
    """
    pair = _fit_pair(edges, prior)
    # The same search in the flipped image: its score is comparable, whatever the exposure.
    if _fit_pair(edges.upside_down(), prior).score > pair.score:
        raise NoLungFieldsError("lungs fit the image better upside down")
    if _fit_pair(edges.mirrored(), prior).score > MIRROR_MARGIN * pair.score:
        raise NoLungFieldsError(
            "lungs fit the image better mirrored: a mirrored film or a heart on the right side"
        )
    return pair


def lung_shape(prior: LungFields, side: Side, heart: float, dome: float) -> Points:
    """The unit shape (96, 2) of one lung for a setting of the two modes."""
    shape = to_unit(prior[side], frame_of(prior[side], side))
    if side == "left":
        mirrored = to_unit(prior["right"], frame_of(prior["right"], "right"))
        shape = (1 - heart) * shape + heart * mirrored
    # The dome is what the diaphragm rises above the line between the two phrenic angles.
    chord = np.linspace(shape[COSTOPHRENIC], shape[CARDIOPHRENIC], DIAPHRAGM_POINTS + 1)[:-1]
    shape[DIAPHRAGM] = chord + (shape[DIAPHRAGM] - chord) * [1, dome]
    return shape


def _scores(edges: EdgeField, shape: Points, frames: Frame) -> NDArray[np.float64]:
    """Score of a shape in each of the frames (n, 4)."""
    outlines = from_unit(shape, frames)
    support = edges.support(outlines, outward_normals(outlines)).mean(axis=-1)
    area = np.abs((frames[:, 1] - frames[:, 0]) * (frames[:, 3] - frames[:, 2])) / edges.x.size
    scores: NDArray[np.float64] = support * area**SIZE_PREFERENCE
    return scores


def _fit_pair(edges: EdgeField, prior: LungFields) -> Pair:
    """The best right and left lung, in pixels of `edges`."""
    pairs = []
    for start in _search_pair(edges, prior)[:STARTS]:
        height = float(np.mean(start[:, 3] - start[:, 2]))
        # Image rows grow downwards.
        first = start[:, 3].min() - BASE_ABOVE * height
        last = min(start[:, 3].max() + BASE_BELOW * height, (1 + OVERHANG) * edges.x.shape[0])
        bottoms = np.linspace(first, last, BASE_HEIGHTS)
        rights, lefts = (
            _profile(edges, prior, side, frame, bottoms)
            for side, frame in zip(SIDES, start, strict=True)
        )
        pairs += [_pair(right, left) for right, left in product(rights, lefts)]
    best = max(pairs, key=lambda pair: pair.score)
    right = _polish(edges, prior, "right", best.right)
    return _pair(right, _polish(edges, prior, "left", best.left))


def _pair(right: Fit, left: Fit) -> Pair:
    """Two lungs as a pair; bases or apices at different heights lower its score."""
    height = np.mean([fit.frame[3] - fit.frame[2] for fit in (right, left)])
    differences = np.abs(right.frame[2:] - left.frame[2:]) / height
    unevenness = float(np.maximum(differences - UNEVENNESS_TOLERANCE, 0).sum())
    return Pair(right.score + left.score - UNEVENNESS_COST * unevenness, right, left)


def _search_pair(edges: EdgeField, prior: LungFields) -> list[Frame]:
    """Frames (2, 4) of right and left lung, best first, over all sizes and positions."""
    frames = np.array([frame_of(prior[side], side) for side in SIDES])
    xs, ys = frames[:, :2], frames[:, 2:]
    origin = np.array([xs.min()] * 2 + [ys.min()] * 2)
    unit_frames = (frames - origin) / ([np.ptp(xs)] * 2 + [np.ptp(ys)] * 2)
    rows, columns = edges.x.shape
    found: list[tuple[float, Frame]] = []
    for heart in SEARCH_HEARTS:
        shapes = [lung_shape(prior, side, heart, 1.0) for side in SIDES]
        for width, height in product(PAIR_WIDTHS, PAIR_HEIGHTS):
            size = np.array([width * columns] * 2 + [height * rows] * 2)
            x, y = np.meshgrid(
                np.linspace(-OVERHANG, 1 + OVERHANG - width, POSITIONS) * columns,
                np.linspace(-OVERHANG, 1 + OVERHANG - height, POSITIONS) * rows,
            )
            shifts = np.column_stack([x.ravel(), x.ravel(), y.ravel(), y.ravel()])
            pair = unit_frames * size + shifts[:, None]
            # Both lungs are shifted together: one alone fits a rib or the stomach's gas.
            support = np.add(*(_support(edges, s, pair[:, i]) for i, s in enumerate(shapes)))
            best = int(np.argmax(support))
            found.append((float(support[best]), pair[best]))
    return [frame for _, frame in sorted(found, key=lambda item: -item[0])]


def _support(edges: EdgeField, shape: Points, frames: Frame) -> NDArray[np.float64]:
    """Mean edge support of a shape in each of many frames (n, 4) of one size."""
    outlines = from_unit(shape[SPARSE], frames)
    # Frames of one size differ by a shift, so their normals are the same.
    normals = outward_normals(outlines[:1])
    support: NDArray[np.float64] = edges.support(outlines, normals).mean(axis=-1)
    return support


def _profile(
    edges: EdgeField, prior: LungFields, side: Side, start: Frame, bottoms: NDArray[np.float64]
) -> list[Fit]:
    """The best fit of one lung for every height of its base."""
    # The heart mode changes the left lung only.
    modes = product(SEARCH_HEARTS if side == "left" else (0.0,), PROFILE_DOMES)
    shapes = [lung_shape(prior, side, heart, dome)[SPARSE] for heart, dome in modes]
    fits = []
    # The base is the border with the most false edges, so every height of it is tried.
    for bottom in bottoms:
        tries = []
        for shape in shapes:
            fit = Fit(0.0, np.append(start[:3], bottom), shape)
            fit = _vary(edges, fit, ACROSS, PROFILE_WIDTHS)
            fit = _vary(edges, fit, TOP, PROFILE_TOPS)
            tries.append(_vary(edges, fit, ACROSS, PROFILE_LAST_WIDTHS))
        fits.append(max(tries, key=lambda fit: fit.score))
    return fits


def _polish(edges: EdgeField, prior: LungFields, side: Side, start: Fit) -> Fit:
    """Refine a fit in small steps, over a finer choice of shapes."""
    fits = []
    for heart, dome in product(HEARTS if side == "left" else (0.0,), DOMES):
        fit = Fit(start.score, start.frame, lung_shape(prior, side, heart, dome))
        for reach in POLISH_REACHES:
            moves = np.linspace(-reach, reach, POLISH_STEPS)
            fit = _vary(edges, fit, ALONG, moves)
            fit = _vary(edges, fit, ACROSS, moves)
        fits.append(fit)
    return max(fits, key=lambda fit: fit.score)


def _vary(edges: EdgeField, fit: Fit, borders: tuple[int, ...], steps: NDArray[np.float64]) -> Fit:
    """The best fit over all combinations of moves of `borders`, in shares of the frame's size."""
    lateral, medial, top, bottom = fit.frame
    size = np.array([medial - lateral] * 2 + [bottom - top] * 2)
    # All combinations are scored at once: numpy is fast on one large array, not on many small.
    frames = np.tile(fit.frame, (len(steps) ** len(borders), 1))
    for border, moves in zip(borders, np.meshgrid(*[steps] * len(borders)), strict=True):
        frames[:, border] += moves.ravel() * size[border]
    scores = _scores(edges, fit.shape, frames)
    best = int(np.argmax(scores))
    return Fit(float(scores[best]), frames[best], fit.shape)
