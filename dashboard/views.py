"""Pictures of radiographs and CT volumes, with what was found drawn over them.

Volumes are shown in the radiological convention: the patient's right is on the left of the
picture; axial cuts are seen from the feet, front up; coronal cuts from the front, head up.
Coordinates of shapes are pixels of the stored image, or voxels of the cut as it is displayed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import approximate_polygon, find_contours

from storage.images.types import Radiograph, Volume
from storage.records import Box

Plane = Literal["axial", "coronal"]

_RADIOGRAPH_PX, _CUT_PX = 1000, 720  # longest side; a page of many must stay small
_CONTOUR_TOLERANCE = 0.3  # voxels: finer than the eye sees
_JPEG_QUALITY = 82


@dataclass(frozen=True, slots=True)
class Window:
    """A CT display window in Hounsfield units."""

    name: str
    level: float
    width: float

    @property
    def reading(self) -> str:
        """Width and level as a reader writes them; with spaces that do not break."""
        return f"W\N{NO-BREAK SPACE}{self.width:.0f}, L\N{NO-BREAK SPACE}{self.level:.0f}".replace(
            "-", "\N{MINUS SIGN}"
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """A plane through a volume; `index` is that of the RAS+ grid, z if axial, y if coronal."""

    plane: Plane
    index: int
    window: Window


@dataclass(frozen=True, slots=True)
class Shape:
    """One outline of a finding, as an SVG path, and where its label goes.

    number: the finding it belongs to; area: of its surroundings, to draw small ones on top.
    """

    number: int
    path: str
    label_xy: tuple[float, float]
    area: float


@dataclass(frozen=True, slots=True)
class View:
    """One picture: a JPEG data URI over a `width` × `height` grid on which shapes are drawn.

    aspect: width over height as it should look, in mm.
    """

    title: str
    caption: str
    source: str
    width: int
    height: int
    aspect: float
    shapes: tuple[Shape, ...]
    is_cut: bool = False


def radiograph_view(radiograph: Radiograph, shapes: Sequence[Shape]) -> View:
    """Show a radiograph with shapes in stored pixels."""
    rows, columns = radiograph.pixels.shape
    row_mm, column_mm = radiograph.spacing_yx_mm or (1.0, 1.0)
    aspect = columns * column_mm / (rows * row_mm)
    view = f", {radiograph.view}" if radiograph.view else ""
    return View(
        title=f"Radiograph{view}",
        caption=f"{radiograph.modality}{view} · {columns} × {rows} pixels, as stored",
        source=_jpeg(radiograph.pixels, aspect, _RADIOGRAPH_PX),
        width=columns,
        height=rows,
        aspect=aspect,
        shapes=_small_on_top(shapes),
    )


def cut_view(volume: Volume, cut: Cut, shapes: Sequence[Shape]) -> View:
    """Show a cut through a volume with the shapes of `mask_shape` on it."""
    plane = displayed(volume.hu, cut)
    x_mm, y_mm, z_mm = volume.spacing_xyz_mm
    rows, columns = plane.shape
    aspect = columns * x_mm / (rows * (y_mm if cut.plane == "axial" else z_mm))
    low = cut.window.level - cut.window.width / 2
    grey = np.clip((plane.astype(np.float32) - low) / cut.window.width, 0, 1)
    axis, origin = (2, "feet") if cut.plane == "axial" else (1, "back")
    name = cut.plane.capitalize()
    return View(
        title=f"{name} {cut.index + 1}, {cut.window.name}",
        caption=f"{name} {cut.index + 1} of {volume.hu.shape[axis]} from the {origin} · "
        f"{cut.window.name} window ({cut.window.reading})",
        source=_jpeg(grey, aspect, _CUT_PX),
        width=columns,
        height=rows,
        aspect=aspect,
        shapes=_small_on_top(shapes),
        is_cut=True,
    )


def displayed(grid: NDArray[Any], cut: Cut) -> NDArray[Any]:
    """The cut through a RAS+ grid (x, y, z) as rows and columns of a picture."""
    plane = grid[:, :, cut.index] if cut.plane == "axial" else grid[:, cut.index, :]
    return plane.T[::-1, ::-1]


def mask_shape(number: int, mask: NDArray[np.bool_], cut: Cut) -> Shape | None:
    """The outline of a mask (x, y, z) on a cut; None where the cut does not meet it."""
    plane = displayed(mask, cut)
    return outline_shape(number, plane) if plane.any() else None


def outline_shape(number: int, plane: NDArray[np.bool_]) -> Shape:
    """The outline of a mask (rows, columns), which must not be empty."""
    # The margin closes contours at the border; +0.5 puts voxel centres half a voxel in.
    outlines = [
        approximate_polygon(contour, _CONTOUR_TOLERANCE)[:, ::-1] - 0.5
        for contour in find_contours(np.pad(plane, 1).astype(np.float32), 0.5)
    ]
    largest = max(outlines, key=lambda xy: float(np.prod(np.ptp(xy, axis=0))))
    top = largest[np.argmin(largest[:, 1])]
    path = "".join("M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in xy[:-1]) + "Z" for xy in outlines)
    return Shape(number, path, (float(top[0]), float(top[1])), float(plane.sum()))


def box_shape(number: int, box: Box) -> Shape:
    """A box on a radiograph."""
    x_min, y_min, x_max, y_max = box.x_min, box.y_min, box.x_max, box.y_max
    path = f"M{x_min:.1f},{y_min:.1f}H{x_max:.1f}V{y_max:.1f}H{x_min:.1f}Z"
    return Shape(number, path, (x_min, y_min), (x_max - x_min) * (y_max - y_min))


def _small_on_top(shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    return tuple(sorted(shapes, key=lambda shape: -shape.area))


def _jpeg(grey: NDArray[np.float32], aspect: float, longest_px: int) -> str:
    """Encode grey values of 0 to 1 as a data URI with the given proportions."""
    width, height = min(1.0, aspect), min(1.0, 1 / aspect)
    size = (max(1, round(longest_px * width)), max(1, round(longest_px * height)))
    picture = Image.fromarray(np.rint(grey * 255).astype(np.uint8))
    stream = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(
        stream, "JPEG", quality=_JPEG_QUALITY, optimize=True
    )
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
