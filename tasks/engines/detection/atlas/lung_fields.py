"""Lung fields of a frontal radiograph: lay a lung shape on its edges, then bend it to them.

1. A pair of lungs is searched over position and size in the image's edge field.
2. Each lung's frame and shape are refined for every height of its base; the best pair whose bases
   and apices agree is kept. Alone, a lung may end at a row of nodules instead of the diaphragm.
3. Each outline is bent along its normals (`tasks.engines.detection.atlas.active_shape`).
4. The result is judged, for a shape can be laid over any picture.

The shape has two modes: *heart* blends the left lung between the atlas patient's (0) and the
mirrored right lung (1), *dome* flattens the diaphragm.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tasks.engines.detection.atlas.active_shape import bend
from tasks.engines.detection.atlas.edges import (
    SIDE_PX,
    EdgeField,
    content,
    edge_field,
    normalise,
    shrink,
)
from tasks.engines.detection.atlas.outlines import (
    CARDIOPHRENIC,
    COSTOPHRENIC,
    DIAPHRAGM,
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
from tasks.engines.detection.atlas.plausibility import NoLungFieldsError, judge

COARSE = 4
"""The search runs on every fourth pixel."""

HEARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
DOMES = (0.3, 0.6, 1.0)

SIZE_PREFERENCE = 0.2
"""Edge support counts times (area share) to this power: a smaller lung finds edges more easily."""

STARTS = 2
"""Positions of the search that are refined."""

MIRRORED = 1.2
"""How much better the mirrored lungs must fit: a slender, central heart fits both ways."""

UNEVENNESS_COST = 0.6
"""Cost of bases or apices whose heights differ, per lung height beyond 5 % of it."""


@dataclass(frozen=True)
class Fit:
    """A unit shape in a frame, and how well the image's edges support it."""

    score: float
    frame: Frame
    shape: Points

    @property
    def outline(self) -> Points:
        """The outline in pixels."""
        return from_unit(self.shape, self.frame)


@dataclass(frozen=True)
class Pair:
    """A right and a left lung that were fitted together."""

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
    rows, columns = content(pixels)
    inner = pixels[rows, columns]
    if min(inner.shape) < max(64, max(inner.shape) / 3) or inner.std() < 1e-3:
        raise NoLungFieldsError("the image is blank, tiny or a narrow strip")
    small = shrink(inner)
    normalised = normalise(small)
    edges = edge_field(normalised, (0.012, 0.025, 0.05))
    pair = _fit_upright(edges.every(COARSE), prior)
    fine = edge_field(normalised, (0.006, 0.012, 0.025))
    right, left = (bend(fit.outline * COARSE, edges, fine) for fit in (pair.right, pair.left))
    fields = judge(small, edges, right, left)
    scale = max(inner.shape) / SIDE_PX
    return fields.moved(scale, (float(columns.start or 0), float(rows.start or 0)))


def _fit_upright(edges: EdgeField, prior: LungFields) -> Pair:
    """The best pair, if the image is neither upside down nor mirrored.

    A mirrored film would swap every side; a heart on the right (dextrocardia) looks the same and
    needs a reader too.
    """
    pair = _fit_pair(edges, prior)
    if _fit_pair(edges.upside_down(), prior).score > pair.score:
        raise NoLungFieldsError("lungs fit the image better upside down")
    if _fit_pair(edges.mirrored(), prior).score > MIRRORED * pair.score:
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
    base = np.linspace(shape[COSTOPHRENIC], shape[CARDIOPHRENIC], 25)[:-1]
    shape[DIAPHRAGM] = base + (shape[DIAPHRAGM] - base) * [1, dome]
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
        lowest, highest = start[:, 3].min() - 0.3 * height, start[:, 3].max() + 0.8 * height
        bottoms = np.linspace(lowest, min(highest, 1.02 * edges.x.shape[0]), 16)
        rights, lefts = (
            _profile(edges, prior, side, frame, bottoms)
            for side, frame in zip(SIDES, start, strict=True)
        )
        pairs += [_pair(right, left) for right, left in product(rights, lefts)]
    best = max(pairs, key=lambda pair: pair.score)
    right = _polish(edges, prior, "right", best.right)
    return _pair(right, _polish(edges, prior, "left", best.left))


def _pair(right: Fit, left: Fit) -> Pair:
    height = np.mean([fit.frame[3] - fit.frame[2] for fit in (right, left)])
    differences = np.abs(right.frame[2:] - left.frame[2:]) / height
    unevenness = float(np.maximum(differences - 0.05, 0).sum())
    return Pair(right.score + left.score - UNEVENNESS_COST * unevenness, right, left)


def _search_pair(edges: EdgeField, prior: LungFields) -> list[Frame]:
    """Frames (2, 4) of right and left lung, best first, over all sizes and positions."""
    frames = np.array([frame_of(prior[side], side) for side in SIDES])
    xs, ys = frames[:, :2], frames[:, 2:]
    origin = np.array([xs.min()] * 2 + [ys.min()] * 2)
    unit_frames = (frames - origin) / ([np.ptp(xs)] * 2 + [np.ptp(ys)] * 2)
    rows, columns = edges.x.shape
    found: list[tuple[float, Frame]] = []
    for heart in (0.0, 0.5, 1.0):
        shapes = [lung_shape(prior, side, heart, 1.0) for side in SIDES]
        for width, height in product(np.linspace(0.5, 0.95, 10), np.linspace(0.4, 0.95, 12)):
            size = np.array([width * columns] * 2 + [height * rows] * 2)
            x, y = np.meshgrid(
                np.linspace(-0.02, 1.02 - width, 12) * columns,
                np.linspace(-0.02, 1.02 - height, 12) * rows,
            )
            shifts = np.column_stack([x.ravel(), x.ravel(), y.ravel(), y.ravel()])
            pair = unit_frames * size + shifts[:, None]
            support = np.add(*(_support(edges, s, pair[:, i]) for i, s in enumerate(shapes)))
            best = int(np.argmax(support))
            found.append((float(support[best]), pair[best]))
    return [frame for _, frame in sorted(found, key=lambda item: -item[0])]


def _support(edges: EdgeField, shape: Points, frames: Frame) -> NDArray[np.float64]:
    outlines = from_unit(shape[::2], frames)
    normals = outward_normals(outlines[:1])
    support: NDArray[np.float64] = edges.support(outlines, normals).mean(axis=-1)
    return support


def _profile(
    edges: EdgeField, prior: LungFields, side: Side, start: Frame, bottoms: NDArray[np.float64]
) -> list[Fit]:
    """The best fit of one lung for every height of its base."""
    modes = list(product((0.0, 0.5, 1.0) if side == "left" else (0.0,), (0.3, 1.0)))
    shapes = [lung_shape(prior, side, heart, dome)[::2] for heart, dome in modes]
    fits = []
    for bottom in bottoms:
        tries = []
        for shape in shapes:
            fit = Fit(0.0, np.append(start[:3], bottom), shape)
            fit = _vary(edges, fit, (0, 1), np.linspace(-0.12, 0.12, 9))
            fit = _vary(edges, fit, (2,), np.linspace(-0.1, 0.1, 7))
            tries.append(_vary(edges, fit, (0, 1), np.linspace(-0.06, 0.06, 9)))
        fits.append(max(tries, key=lambda fit: fit.score))
    return fits


def _polish(edges: EdgeField, prior: LungFields, side: Side, start: Fit) -> Fit:
    """Refine a fit in small steps, over a finer choice of shapes."""
    fits = []
    for heart, dome in product(HEARTS if side == "left" else (0.0,), DOMES):
        fit = Fit(start.score, start.frame, lung_shape(prior, side, heart, dome))
        for reach in (0.06, 0.03, 0.015):
            fit = _vary(edges, fit, (2, 3), np.linspace(-reach, reach, 9))
            fit = _vary(edges, fit, (0, 1), np.linspace(-reach, reach, 9))
        fits.append(fit)
    return max(fits, key=lambda fit: fit.score)


def _vary(edges: EdgeField, fit: Fit, borders: tuple[int, ...], steps: NDArray[np.float64]) -> Fit:
    """The best of all combinations of moving `borders` of a fit's frame by shares of its size."""
    lateral, medial, top, bottom = fit.frame
    size = np.array([medial - lateral] * 2 + [bottom - top] * 2)
    frames = np.tile(fit.frame, (len(steps) ** len(borders), 1))
    for border, moves in zip(borders, np.meshgrid(*[steps] * len(borders)), strict=True):
        frames[:, border] += moves.ravel() * size[border]
    scores = _scores(edges, fit.shape, frames)
    best = int(np.argmax(scores))
    return Fit(float(scores[best]), frames[best], fit.shape)
