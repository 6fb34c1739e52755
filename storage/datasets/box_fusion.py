"""Boxes that several readers drew for one finding, made one box.

As the boxes that the paper's detector was trained on were made (VinDr-CXR, three readers an image):
corners are rounded outwards; boxes of one reader that nearly coincide are one; boxes of different
readers that overlap are one finding, whose box is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.overlap import box_iou
from storage.records import Box

SAME_READER_IOU = 0.9
"""From this IoU on, two boxes of one reader are one box drawn twice."""

READERS_IOU = 0.25
"""From this IoU on, boxes of two readers are one finding."""

METHOD = f"mean of readers, IoU ≥ {READERS_IOU}"


@dataclass(frozen=True, slots=True)
class FusedBox:
    """The mean of the boxes of so many readers, in whole pixels."""

    box: Box
    readers: int


def fuse(boxes: Sequence[tuple[str, Box]]) -> list[FusedBox]:
    """One box for each finding of one image and label.

    Args:
        boxes: reader and box, on the image.
    """
    if not boxes:
        return []
    readers = np.array([reader for reader, _ in boxes])
    corners = np.array([_outwards(box) for _, box in boxes])
    iou = box_iou(corners[:, None], corners)
    same = readers[:, None] == readers
    groups = _components((iou >= SAME_READER_IOU) & same)
    corners = np.array([corners[group].mean(axis=0) for group in groups])
    readers = np.array([readers[group[0]] for group in groups])
    iou = box_iou(corners[:, None], corners)
    findings = _components((iou >= READERS_IOU) & (readers[:, None] != readers))
    return [
        FusedBox(_rounded(corners[group].mean(axis=0)), len(set(readers[group])))
        for group in findings
    ]


def _rounded(corners: NDArray[np.float64]) -> Box:
    x_min, y_min, x_max, y_max = np.rint(corners).tolist()
    return Box(x_min, y_min, x_max, y_max, 1.0)


def _outwards(box: Box) -> tuple[float, float, float, float]:
    low = np.floor([box.x_min, box.y_min])
    high = np.ceil([box.x_max, box.y_max])
    return (*low.tolist(), *high.tolist())


def _components(linked: NDArray[np.bool_]) -> list[list[int]]:
    """The connected groups of a symmetric relation, in order of their first member.

    An image has a few boxes of a label: SciPy would take longer to look at the matrix.
    """
    groups: list[list[int]] = []
    seen: set[int] = set()
    for first in range(len(linked)):
        if first in seen:
            continue
        seen.add(first)
        group = [first]
        for member in group:
            near = [other for other in np.flatnonzero(linked[member]).tolist() if other not in seen]
            seen.update(near)
            group += near
        groups.append(sorted(group))
    return groups
