"""Geometry of axis-aligned 3D boxes, differentiable.

A box is (z, y, x, depth, height, width): centre and size in shares of the image, so that a box of a
radiograph, z = 0.5 and depth = 1, is an ordinary case.

`storage.overlap` measures the overlap of boxes in numpy. This module needs the same GIoU in torch:
the training loss takes its gradient, and matching runs on the device of the predictions.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST_VOLUME = 1e-12
"""Share of the image below which a volume counts as none: far less than any voxel."""


def to_corners(boxes: Tensor) -> Tensor:
    """Turn centre-size boxes (…, 6) into corners (z0, y0, x0, z1, y1, x1)."""
    centre, size = boxes.chunk(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """Compare boxes pair by pair with the generalised IoU (Rezatofighi et al., CVPR 2019).

    MONAI's version adds an epsilon of 1e-7 to the volumes, which is what a nodule takes of a CT;
    this one is exact for every box that holds a voxel.

    Args:
        first: (…, 6) centre-size boxes.
        second: as first; the leading dimensions broadcast.

    Returns:
        (…) in [-1, 1]: 1 for identical boxes, towards -1 for small ones far apart. Boxes without a
        volume give a finite value.
    """
    first_corners, second_corners = to_corners(first), to_corners(second)
    first_low, first_high = first_corners.chunk(2, dim=-1)
    second_low, second_high = second_corners.chunk(2, dim=-1)
    inner = _volume(first_low.maximum(second_low), first_high.minimum(second_high))
    outer = _volume(first_low.minimum(second_low), first_high.maximum(second_high))
    # Volumes come from the corners alone, so that equal boxes give 1 to the last bit.
    union = _volume(first_low, first_high) + _volume(second_low, second_high) - inner
    iou = inner / union.clamp(min=_SMALLEST_VOLUME)
    return iou - (outer - union) / outer.clamp(min=_SMALLEST_VOLUME)


def _volume(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(dim=-1)
