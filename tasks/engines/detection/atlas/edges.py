"""The edges of a radiograph that may be a lung's border, whatever the film's exposure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import transform

SIDE_PX = 512
"""Longest side of the image that is worked on."""


@dataclass(frozen=True)
class EdgeField:
    """Capped multi-scale gradient (rows, columns) along x and y; its length is at most 0.5."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def support(
        self, points: NDArray[np.float64], normals: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """How strongly the image brightens along each normal; 0 outside of the image.

        Args:
            points: (…, 2) x, y in pixels.
            normals: (…, 2) unit vectors, of a shape that broadcasts with `points`.
        """
        rows, columns = self.x.shape
        column, row = np.floor(points[..., 0]).astype(int), np.floor(points[..., 1]).astype(int)
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        column, row = np.where(inside, column, 0), np.where(inside, row, 0)
        along = self.x[row, column] * normals[..., 0] + self.y[row, column] * normals[..., 1]
        return np.where(inside, along, 0.0)

    def mirrored(self) -> EdgeField:
        """The field of the image flipped left to right."""
        return EdgeField(-self.x[:, ::-1], self.y[:, ::-1])

    def upside_down(self) -> EdgeField:
        """The field of the image flipped top to bottom."""
        return EdgeField(self.x[::-1], -self.y[::-1])

    def every(self, step: int) -> EdgeField:
        """The field at every `step`-th pixel."""
        return EdgeField(self.x[::step, ::step], self.y[::step, ::step])


def content(pixels: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns inside a uniform frame (collimation, padding); all of a blank image."""

    def span(low: NDArray[np.float32], high: NDArray[np.float32]) -> slice:
        used = np.flatnonzero(high - low > 0.03)
        return slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(None)

    # Percentiles, not extremes: a side marker often stands in the frame.
    columns = span(*np.percentile(pixels[::4], [5, 95], axis=0))
    return span(*np.percentile(pixels[:, columns][:, ::4], [5, 95], axis=1)), columns


def shrink(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The image resized so that its longest side is `SIDE_PX`."""
    factor = SIDE_PX / max(pixels.shape)
    shape = tuple(max(1, round(side * factor)) for side in pixels.shape)
    # Block averages first: Gaussian anti-aliasing of a 4000 px film would take seconds.
    block = max(1, int(1 / factor))
    coarse = transform.downscale_local_mean(pixels, (block, block)) if block > 1 else pixels
    small: NDArray[np.float64] = transform.resize(
        coarse.astype(np.float64), shape, order=1, anti_aliasing=True
    )
    return small


def normalise(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values relative to the local mean and spread, so that a dark film's edges count as much."""
    window = SIDE_PX * 0.08
    mean = ndimage.gaussian_filter(image, window)
    variance = ndimage.gaussian_filter(image**2, window) - mean**2
    # A tenth of the whole image's spread keeps flat regions flat; noise is not amplified there.
    floor = 0.1 * image.std() + 1e-6
    normalised: NDArray[np.float64] = (image - mean) / (np.sqrt(np.maximum(variance, 0)) + floor)
    return normalised


def edge_field(normalised: NDArray[np.float64], scales: tuple[float, ...]) -> EdgeField:
    """Mean over Gaussian `scales` (shares of `SIDE_PX`) of the gradient, each capped.

    A rib's edge lives at one scale, a lung's border at all of them; the cap keeps a metal marker
    or the film's edge from outweighing a whole border.
    """
    total_x, total_y = np.zeros_like(normalised), np.zeros_like(normalised)
    for scale in scales:
        sigma = scale * SIDE_PX
        gradient_y, gradient_x = np.gradient(ndimage.gaussian_filter(normalised, sigma) * sigma)
        weight = 1 / np.maximum(1, np.hypot(gradient_x, gradient_y) / 0.5) / len(scales)
        total_x += gradient_x * weight
        total_y += gradient_y * weight
    return EdgeField(total_x, total_y)
