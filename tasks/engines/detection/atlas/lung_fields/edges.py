"""Gradient features of a radiograph that do not depend on its exposure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import transform

SIDE_PX = 512
"""Longest side of the working image: lung borders are still sharp, the search is affordable."""

FINE_SCALES = (0.006, 0.012, 0.025)
COARSE_SCALES = (0.012, 0.025, 0.05)
"""Gaussian sigmas in shares of `SIDE_PX`, each twice the last: 3 to 13 px, and 6 to 26 px."""

GRADIENT_CAP = 0.5
"""Longest gradient that counts per scale, in local standard deviations. Chosen on the radiographs
of the inputs."""

FRAME_CONTRAST = 0.03
"""A row or column whose pixel values (0 to 1) spread less than this is padding or collimation."""

FRAME_PERCENTILES = (5, 95)
"""Percentiles, not extremes: a side marker often lies in the padding."""

FRAME_STRIDE = 4
"""Every fourth pixel suffices for a percentile."""

LOCAL_WINDOW = 0.08
"""Sigma of local mean and spread, in shares of `SIDE_PX`: 41 px, less than a lung's width, so that
lung and mediastinum are not averaged together."""

SPREAD_FLOOR, TINY = 0.1, 1e-6
"""Share of the whole image's spread added to the local one, so that noise in flat regions is not
amplified; and what keeps a blank image's division finite."""


@dataclass(frozen=True)
class EdgeField:
    """Multi-scale gradient (rows, columns) along x and y, at most `GRADIENT_CAP` long."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def support(
        self, points: NDArray[np.float64], normals: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Gradient along each normal (outward brightening is positive); 0 outside of the image.

        Args:
            points: (…, 2) x, y in pixels.
            normals: (…, 2) unit vectors, of a shape that broadcasts with `points`.
        """
        rows, columns = self.x.shape
        column, row = np.floor(points[..., 0]).astype(int), np.floor(points[..., 1]).astype(int)
        # A lung may extend beyond the image; there is no edge to support it there.
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
    """Rows and columns inside uniform collimation or padding; all of a blank image."""

    def span(low: NDArray[np.float32], high: NDArray[np.float32]) -> slice:
        used = np.flatnonzero(high - low > FRAME_CONTRAST)
        return slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(None)

    columns = span(*np.percentile(pixels[::FRAME_STRIDE], FRAME_PERCENTILES, axis=0))
    # Rows are examined inside the columns: wide padding would otherwise hide their contrast.
    inner = pixels[:, columns][:, ::FRAME_STRIDE]
    return span(*np.percentile(inner, FRAME_PERCENTILES, axis=1)), columns


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


def normalize(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values in local standard deviations from the local mean, to remove the exposure."""
    window = SIDE_PX * LOCAL_WINDOW
    mean = ndimage.gaussian_filter(image, window)
    variance = ndimage.gaussian_filter(image**2, window) - mean**2
    floor = SPREAD_FLOOR * image.std() + TINY
    normalized: NDArray[np.float64] = (image - mean) / (np.sqrt(np.maximum(variance, 0)) + floor)
    return normalized


def edge_field(normalized: NDArray[np.float64], scales: tuple[float, ...]) -> EdgeField:
    """Mean of the capped gradients over Gaussian `scales` (shares of `SIDE_PX`).

    A rib's edge shows at one scale, a lung's border at all of them; the cap keeps a metal marker
    or the edge of the film from outweighing a whole border.
    """
    total_x, total_y = np.zeros_like(normalized), np.zeros_like(normalized)
    for scale in scales:
        sigma = scale * SIDE_PX
        # Times sigma: gradients of all scales then have one unit (Lindeberg 1998).
        gradient_y, gradient_x = np.gradient(ndimage.gaussian_filter(normalized, sigma) * sigma)
        length = np.hypot(gradient_x, gradient_y)
        weight = 1 / np.maximum(1, length / GRADIENT_CAP) / len(scales)
        total_x += gradient_x * weight
        total_y += gradient_y * weight
    return EdgeField(total_x, total_y)
