"""Overlap of two masks and of two boxes: Dice, IoU and generalized IoU.

Masks are Boolean arrays of one shape, in 2D or 3D. Two empty masks agree: their Dice and IoU are 1,
as in the evaluation of SAT; if only one mask is empty, both are 0. MONAI and medpy give NaN for two
empty masks, which a mean over structures would then drop or spread.

Boxes are half-open and axis-aligned, the lowest corner followed by the highest: (…, 4) as x_min,
y_min, x_max, y_max or (…, 6) in 3D; any order of the axes will do if both boxes share it. Leading
dimensions broadcast: `box_iou(a[:, None], b)` is the matrix of n × m pairs. A box that ends where
it starts, or before, is empty; its IoU is 0, with itself too.

`model.network.localization.boxes` holds the differentiable GIoU of the training loss.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Twice the voxels in common over the sum of both masks' voxels, 0 to 1.

    Raises:
        ValueError: if the masks differ in shape.
    """
    shared, first_size, second_size = _counts(first, second)
    total = first_size + second_size
    return 2 * shared / total if total else 1.0


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Voxels in common over the voxels of either mask, 0 to 1.

    Raises:
        ValueError: if the masks differ in shape.
    """
    shared, first_size, second_size = _counts(first, second)
    union = first_size + second_size - shared
    return shared / union if union else 1.0


def box_iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Volume (in 2D area) in common over that of the union, 0 to 1.

    Returns:
        The leading dimensions of both, broadcast: () for two boxes.

    Raises:
        ValueError: if the last axis has neither 4 nor 6 coordinates.
    """
    first_low, first_high = _corners(first)
    second_low, second_high = _corners(second)
    return _iou_and_union(first_low, first_high, second_low, second_high)[0]


def box_giou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """IoU less the share of the enclosing box that the union leaves empty, -1 to 1.

    Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019. It is 1 for equal boxes
    and falls towards -1 with the distance of small ones. Where the enclosing box is empty there is
    no such share, and GIoU is IoU.

    Returns:
        The leading dimensions of both, broadcast: () for two boxes.

    Raises:
        ValueError: if the last axis has neither 4 nor 6 coordinates.
    """
    first_low, first_high = _corners(first)
    second_low, second_high = _corners(second)
    iou, union = _iou_and_union(first_low, first_high, second_low, second_high)
    enclosing = _volume(np.minimum(first_low, second_low), np.maximum(first_high, second_high))
    return iou - _ratio(enclosing - union, enclosing)


def _counts(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int, int]:
    # Arrays of other shapes may broadcast: a slice would be compared with every slice.
    if first.shape != second.shape:
        raise ValueError(f"masks of the shapes {first.shape} and {second.shape} cannot be compared")
    shared, *sizes = (int(np.count_nonzero(mask)) for mask in (first & second, first, second))
    return shared, sizes[0], sizes[1]


def _corners(boxes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners = np.asarray(boxes, np.float64)
    if corners.shape[-1] not in (4, 6):
        raise ValueError(f"boxes of the shape {corners.shape} do not end in 4 or 6 coordinates")
    axes = corners.shape[-1] // 2
    return corners[..., :axes], corners[..., axes:]


def _iou_and_union(
    first_low: NDArray[np.float64],
    first_high: NDArray[np.float64],
    second_low: NDArray[np.float64],
    second_high: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shared = _volume(np.maximum(first_low, second_low), np.minimum(first_high, second_high))
    union = _volume(first_low, first_high) + _volume(second_low, second_high) - shared
    return _ratio(shared, union), union


def _volume(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    volume: NDArray[np.float64] = np.maximum(high - low, 0).prod(axis=-1)
    return volume


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where the whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)
