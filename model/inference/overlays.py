"""Pictures of an image with what was found drawn on it: outlines of masks, boxes, a legend.

A radiograph is drawn once with everything. Of a CT, every phrase that points at something gets a
row: the axial and the coronal cut that show it best, with the others there in thin lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.data.images import SourceImage
from model.inference.planes import Plane, grey, planes_through
from storage.records import Tag

_COLOURS = "#ff5a5f #31c7ff #ffd23f #6ee27a #ff9f40 #c792ff #ff7ad1 #40e0d0 #b8d430 #9fb4ff".split()
_ONLY_PX, _CUT_PX = 1100, 420  # longest side of a picture
_MOST_ROWS = 12  # of cuts; a longer strip is not looked at
_TEXT_PX, _GAP_PX = 18, 8
_BACKGROUND, _INK = "#101418", "#e8ecf0"


@dataclass(frozen=True)
class _Drawn:
    """A region in its colour, with the outlines of its mask on the planes that are shown."""

    region: Tag
    colour: str
    outlines: Mapping[Plane, list[NDArray[np.float64]]]


def draw(source: SourceImage, regions: Sequence[Tag]) -> Image.Image:
    """Draw an image and its regions.

    Args:
        source: the image.
        regions: in reading order, which is the order of the colours.
    """
    one_by_one = source.grid.affine is not None
    pointing = [found for found in regions if found.grounding.mask or found.grounding.boxes][
        :_MOST_ROWS
    ]
    chosen: list[Tag | None] = [*pointing] if one_by_one and pointing else [None]
    rows = [(region, planes_through(source.grid, region)) for region in chosen]
    planes = [plane for _, of_row in rows for plane in of_row]
    drawn = [
        _Drawn(region, colour, _outlines(region, planes))
        for region, colour in zip(regions, islice(cycle(_COLOURS), len(regions)), strict=True)
    ]
    longest_px = _CUT_PX if one_by_one else _ONLY_PX
    parts = []
    for region, of_row in rows:
        cuts = [_picture(source, plane, drawn, region, longest_px) for plane in of_row]
        named = [found for found in drawn if region is None or found.region is region]
        parts += [_legend(named), _side_by_side(cuts)]
    return _stack(parts)


def _outlines(region: Tag, planes: Sequence[Plane]) -> dict[Plane, list[NDArray[np.float64]]]:
    """Decodes one mask at a time: all those of a large CT would not fit in memory."""
    if region.grounding.mask is None:
        return {plane: [] for plane in planes}
    mask = region.grounding.mask.voxels
    return {plane: plane.outlines(plane.grid.to_array(mask)) for plane in planes}


def _picture(
    source: SourceImage,
    plane: Plane,
    drawn: Sequence[_Drawn],
    chosen: Tag | None,
    longest_px: int,
) -> Image.Image:
    """A cut with the regions on it; all lines are thick if none is chosen."""
    cut = grey(source, plane)
    size_mm = np.array(cut.shape) * plane.pixel_mm
    height, width = np.maximum(1, np.rint(size_mm * longest_px / size_mm.max())).astype(int)
    image = Image.fromarray(np.rint(cut * 255).astype(np.uint8))
    image = image.resize((int(width), int(height)), Image.Resampling.LANCZOS).convert("RGB")
    scale = np.array([width / cut.shape[1], height / cut.shape[0]])
    canvas = ImageDraw.Draw(image)
    for found in drawn:
        thickness = 3 if chosen is None or chosen is found.region else 1
        for line in found.outlines[plane]:
            canvas.line([tuple(xy) for xy in line * scale], found.colour, thickness, joint="curve")
        for box in _boxes(plane, found.region):
            corners = np.reshape(box, (2, 2)) * scale
            canvas.rectangle([tuple(xy) for xy in corners], outline=found.colour, width=thickness)
    return image


def _boxes(plane: Plane, region: Tag) -> list[tuple[float, float, float, float]]:
    if not region.grounding.boxes:
        return []
    corners = plane.grid.boxes_to_array(
        np.stack([found.corners for found in region.grounding.boxes])
    )
    return [box for box in map(plane.box, corners) if box is not None]


def _legend(drawn: Sequence[_Drawn]) -> Image.Image:
    """A line for each region: its colour, its phrase, and how sure or how large."""
    font = ImageFont.load_default(_TEXT_PX)
    lines = [(found.colour, _caption(found.region)) for found in drawn]
    if not lines:
        lines = [(_BACKGROUND, "nothing is pointed at")]
    width = max(int(font.getlength(text)) for _, text in lines) + 3 * _TEXT_PX
    image = Image.new("RGB", (width, (_TEXT_PX + _GAP_PX) * len(lines)), _BACKGROUND)
    canvas = ImageDraw.Draw(image)
    for number, (colour, text) in enumerate(lines):
        top = number * (_TEXT_PX + _GAP_PX)
        canvas.rectangle((_GAP_PX, top + 4, _GAP_PX + _TEXT_PX, top + _TEXT_PX), fill=colour)
        canvas.text((2 * _TEXT_PX, top), text, _INK, font)
    return image


def _caption(region: Tag) -> str:
    said = []
    if region.grounding.mask is not None:
        said.append("mask" if region.grounding.mask.voxel_count else "empty mask")
    if region.grounding.boxes is not None:
        scores = ", ".join(f"{found.score:.2f}" for found in region.grounding.boxes)
        said.append(f"boxes {scores}" if scores else "no box")
    return f"{region.phrase.strip()}: {'; '.join(said) or 'not pointed at'}"


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
