"""Pictures of predictions: the image with outlines of masks, boxes and a legend.

A radiograph is drawn once, with all tags. A CT has a row for every grounded phrase: the axial and
the coronal slice that show it best; other tags on these slices have thin lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.data.images import SourceImage
from storage.images.file_grid import ARRAY_OF_RAS, FileGrid
from storage.imaging.overlays import mask_outlines, picture
from storage.imaging.slices import Slice, largest_slices, middle_slices, slices_at
from storage.imaging.windows import windows
from storage.records import Tag

_COLORS = "#ff5a5f #31c7ff #ffd23f #6ee27a #ff9f40 #c792ff #ff7ad1 #40e0d0 #b8d430 #9fb4ff".split()
_BACKGROUND, _INK = "#101418", "#e8ecf0"
_RADIOGRAPH_PX, _SLICE_PX = 1100, 420  # longest side of a picture
_MOST_ROWS = 12  # rows of slices; nobody looks at a longer strip
_TEXT_PX, _GAP_PX = 18, 8  # height of the legend's text; space between pictures
_THICK_PX, _THIN_PX = 3, 1  # lines of the tags that a picture is for, and of the others
_WINDOW = "lung and soft tissue"  # one window for all: a phrase may have no known target

Panel = Slice | None
"""What one picture shows: a slice of a CT, or (None) the whole of a radiograph."""


@dataclass(frozen=True)
class _Drawn:
    """A tag in its color, with the outlines of its mask on the panels that are shown."""

    tag: Tag
    color: str
    outlines: Mapping[Panel, list[NDArray[np.float64]]]


def draw(source: SourceImage, tags: Sequence[Tag]) -> Image.Image:
    """Draw an image and what grounds the tags of its text.

    Args:
        source: the image.
        tags: in reading order, which is the order of the colors; boxes and masks lie on the grid
            of the image's file.
    """
    is_ct = source.grid.affine is not None
    grounded = [tag for tag in tags if tag.grounding.mask or tag.grounding.boxes][:_MOST_ROWS]
    chosen: list[Tag | None] = [*grounded] if is_ct and grounded else [None]
    rows = [(tag, panels_for(source.grid, tag)) for tag in chosen]
    panels = [panel for _, of_row in rows for panel in of_row]
    drawn = [
        _Drawn(tag, color, _outlines(source.grid, tag, panels))
        for tag, color in zip(tags, islice(cycle(_COLORS), len(tags)), strict=True)
    ]
    parts = []
    for tag, of_row in rows:
        pictures = [_picture(source, panel, drawn, tag) for panel in of_row]
        named = [found for found in drawn if tag is None or found.tag is tag]
        parts += [_legend(named), _side_by_side(pictures)]
    return _stack(parts)


def panels_for(grid: FileGrid, tag: Tag | None) -> Sequence[Panel]:
    """The slices of a CT that show a tag best, or the middle ones; one panel of a radiograph."""
    if grid.affine is None:
        return [None]
    mask, boxes = (tag.grounding.mask, tag.grounding.boxes) if tag else (None, None)
    if mask is not None and mask.voxel_count:
        return largest_slices(grid.to_ras(mask.voxels))
    if boxes:
        box = grid.boxes_to_ras(boxes[0].corners[None])[0]
        return slices_at(box.mean(axis=0).tolist(), grid.ras_shape)
    return middle_slices(grid.ras_shape)


def _outlines(
    grid: FileGrid, tag: Tag, panels: Sequence[Panel]
) -> dict[Panel, list[NDArray[np.float64]]]:
    """Decodes one mask at a time: all those of a large CT would not fit in memory."""
    if tag.grounding.mask is None:
        return {panel: [] for panel in panels}
    mask = tag.grounding.mask.voxels
    return {
        panel: mask_outlines(mask[0] if panel is None else panel.of(grid.to_ras(mask)))
        for panel in panels
    }


def _picture(
    source: SourceImage, panel: Panel, drawn: Sequence[_Drawn], chosen: Tag | None
) -> Image.Image:
    """A panel with boxes and masks on it; all lines are thick if none is chosen."""
    gray = _gray(source, panel)
    rows, columns = gray.shape
    if panel is None:
        image = picture(gray, columns / rows, _RADIOGRAPH_PX)
    else:
        aspect = panel.aspect(source.grid.ras_shape, source.grid.spacing_xyz_mm)
        image = picture(gray, aspect, _SLICE_PX)
    image = image.convert("RGB")
    scale = np.array([image.width / columns, image.height / rows])
    canvas = ImageDraw.Draw(image)
    for found in drawn:
        thickness = _THICK_PX if chosen is None or chosen is found.tag else _THIN_PX
        for line in found.outlines[panel]:
            canvas.line([tuple(xy) for xy in line * scale], found.color, thickness, joint="curve")
        for box in _boxes(source.grid, panel, found.tag):
            corners = np.reshape(box, (2, 2)) * scale
            canvas.rectangle([tuple(xy) for xy in corners], outline=found.color, width=thickness)
    return image


def _gray(source: SourceImage, panel: Panel) -> NDArray[np.float32]:
    """The pixels of a panel, 0 (black) to 1 (white)."""
    array = source.pixels[0]
    if panel is None:
        return array[0]
    section = panel.of(array.transpose(ARRAY_OF_RAS))
    if source.range_hu is None:
        return section  # no window is known for the signal of another modality than CT
    low_hu, high_hu = source.range_hu
    return windows()[_WINDOW].grey(section * (high_hu - low_hu) + low_hu)


def _boxes(grid: FileGrid, panel: Panel, tag: Tag) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom of the boxes that intersect a panel."""
    if not tag.grounding.boxes:
        return []
    corners = np.stack([box.corners for box in tag.grounding.boxes])
    if panel is None:
        return [
            (left, top, right, bottom) for (_, top, left), (_, bottom, right) in corners.tolist()
        ]
    boxes = [panel.rectangle(box, grid.ras_shape) for box in grid.boxes_to_ras(corners)]
    return [box for box in boxes if box is not None]


def _legend(drawn: Sequence[_Drawn]) -> Image.Image:
    """A line for each tag: its color, its phrase, and what grounds it."""
    font = ImageFont.load_default(_TEXT_PX)
    lines = [(found.color, _caption(found.tag)) for found in drawn]
    if not lines:
        lines = [(_BACKGROUND, "no phrase is grounded")]
    width = max(int(font.getlength(text)) for _, text in lines) + 3 * _TEXT_PX
    image = Image.new("RGB", (width, (_TEXT_PX + _GAP_PX) * len(lines)), _BACKGROUND)
    canvas = ImageDraw.Draw(image)
    for number, (color, text) in enumerate(lines):
        top = number * (_TEXT_PX + _GAP_PX)
        canvas.rectangle((_GAP_PX, top + 4, _GAP_PX + _TEXT_PX, top + _TEXT_PX), fill=color)
        canvas.text((2 * _TEXT_PX, top), text, _INK, font)
    return image


def _caption(tag: Tag) -> str:
    grounding = []
    if tag.grounding.mask is not None:
        grounding.append("mask" if tag.grounding.mask.voxel_count else "empty mask")
    if tag.grounding.boxes is not None:
        scores = ", ".join(f"{box.score:.2f}" for box in tag.grounding.boxes)
        grounding.append(f"boxes {scores}" if scores else "no box")
    return f"{tag.phrase.strip()}: {'; '.join(grounding) or 'not grounded'}"


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    width = sum(image.width for image in images) + _GAP_PX * (len(images) - 1)
    joined = Image.new("RGB", (width, max(image.height for image in images)), _BACKGROUND)
    left = 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width + _GAP_PX
    return joined


def _stack(images: Sequence[Image.Image]) -> Image.Image:
    height = sum(image.height for image in images) + _GAP_PX * (len(images) - 1)
    joined = Image.new("RGB", (max(image.width for image in images), height), _BACKGROUND)
    top = 0
    for image in images:
        joined.paste(image, (0, top))
        top += image.height + _GAP_PX
    return joined
