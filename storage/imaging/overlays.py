"""Pictures for a screen, and the outlines of masks to draw over them.

Coordinates are x and y in pixels of the section before it is resized; pixel i covers [i, i + 1).
"""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import approximate_polygon, find_contours

_JPEG_QUALITY = 82
"""Of 100: keeps a page of many pictures small without visible artefacts."""


def mask_outlines(
    section: NDArray[np.bool_], tolerance_px: float = 0.0
) -> list[NDArray[np.float64]]:
    """Closed lines (n, 2) of x, y around the parts of a mask (rows, columns) and their holes.

    Args:
        section: the mask on a radiograph or on a slice.
        tolerance_px: how far a line may leave the exact outline to have fewer points.
    """
    # A margin of 1 closes the lines at the border; contours count from the centre of pixel 0, which
    # lies half a pixel inside: -1 + 0.5.
    padded = np.pad(section, 1).astype(np.float32)
    return [
        approximate_polygon(line, tolerance_px)[:, ::-1] - 0.5
        for line in find_contours(padded, 0.5)
    ]


def picture(grey: NDArray[np.float32], aspect: float, longest_px: int) -> Image.Image:
    """An 8-bit picture of given proportions.

    Args:
        grey: (rows, columns), 0 (black) to 1 (white).
        aspect: width over height as it should look.
        longest_px: pixels of the longer side.
    """
    width, height = min(1.0, aspect), min(1.0, 1 / aspect)
    size = max(1, round(longest_px * width)), max(1, round(longest_px * height))
    image = Image.fromarray(np.rint(grey * 255).astype(np.uint8))
    return image.resize(size, Image.Resampling.LANCZOS)


def jpeg_data_uri(image: Image.Image) -> str:
    """A picture as the source of an HTML image."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
