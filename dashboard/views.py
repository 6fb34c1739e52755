"""Pictures of radiographs and CT slices for a page, with the outlines of what was found.

Coordinates of shapes are pixels of the stored radiograph, or of the slice before it is resized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.images.types import Radiograph, Volume
from storage.imaging.overlays import jpeg_data_uri, mask_outlines, picture
from storage.imaging.slice_selection import WindowedSlice
from storage.imaging.slices import Slice
from storage.records import Box

_RADIOGRAPH_PX, _SLICE_PX = 1000, 720  # longest side; a page of many must stay small
_OUTLINE_TOLERANCE_PX = 0.3  # of the slice: below what the eye sees; keeps paths short


@dataclass(frozen=True, slots=True)
class Shape:
    """One outline of a finding, as an SVG path, and where its label goes.

    number: the finding it belongs to; area: that it encloses, to draw small ones on top.
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
    is_slice: bool = False


def radiograph_view(radiograph: Radiograph, shapes: Sequence[Shape]) -> View:
    """Show a radiograph with shapes in stored pixels."""
    rows, columns = radiograph.pixels.shape
    row_mm, column_mm = radiograph.spacing_yx_mm or (1.0, 1.0)
    aspect = columns * column_mm / (rows * row_mm)
    view = f", {radiograph.view}" if radiograph.view else ""
    return View(
        title=f"Radiograph{view}",
        caption=f"{radiograph.modality}{view} · {columns} × {rows} pixels, as stored",
        source=jpeg_data_uri(picture(radiograph.pixels, aspect, _RADIOGRAPH_PX)),
        width=columns,
        height=rows,
        aspect=aspect,
        shapes=_small_on_top(shapes),
    )


def slice_view(volume: Volume, shown: WindowedSlice, shapes: Sequence[Shape]) -> View:
    """Show a slice of a volume with the shapes of `mask_shape` on it."""
    section = shown.of(volume.hu)
    rows, columns = section.shape
    aspect = shown.aspect(volume.hu.shape, volume.spacing_xyz_mm)
    origin = "feet" if shown.plane == "axial" else "back"
    name, count = shown.plane.capitalize(), volume.hu.shape[shown.normal_axis]
    return View(
        title=f"{name} {shown.index + 1}, {shown.window.name}",
        caption=f"{name} {shown.index + 1} of {count} from the {origin} · "
        f"{shown.window.name} window ({shown.window.setting})",
        source=jpeg_data_uri(picture(shown.window.grey(section), aspect, _SLICE_PX)),
        width=columns,
        height=rows,
        aspect=aspect,
        shapes=_small_on_top(shapes),
        is_slice=True,
    )


def mask_shape(number: int, mask: NDArray[np.bool_], shown: Slice) -> Shape | None:
    """The outline of a mask (x, y, z) on a slice; None if the slice does not meet it."""
    section = shown.of(mask)
    return outline_shape(number, section) if section.any() else None


def outline_shape(number: int, section: NDArray[np.bool_]) -> Shape:
    """The outline of a mask (rows, columns), which must not be empty."""
    outlines = mask_outlines(section, _OUTLINE_TOLERANCE_PX)
    largest = max(outlines, key=lambda xy: float(np.prod(np.ptp(xy, axis=0))))
    top = largest[np.argmin(largest[:, 1])]
    path = "".join("M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in xy[:-1]) + "Z" for xy in outlines)
    return Shape(number, path, (float(top[0]), float(top[1])), float(section.sum()))


def box_shape(number: int, box: Box) -> Shape:
    """A box on a radiograph."""
    x_min, y_min, x_max, y_max = box.x_min, box.y_min, box.x_max, box.y_max
    path = f"M{x_min:.1f},{y_min:.1f}H{x_max:.1f}V{y_max:.1f}H{x_min:.1f}Z"
    return Shape(number, path, (x_min, y_min), (x_max - x_min) * (y_max - y_min))


def _small_on_top(shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    return tuple(sorted(shapes, key=lambda shape: -shape.area))
