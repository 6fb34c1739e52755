"""Geometry of axis-aligned 3D boxes, differentiable.

A box is (z, y, x, depth, height, width): center and size in shares of the image. A box of a
radiograph, with z = 0.5 and depth = 1, needs no special case.

`storage.overlap` measures the overlap of boxes in numpy. This module needs the same GIoU in torch:
the training loss takes its gradient, and matching runs on the device of the predictions.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST_VOLUME = 1e-12
"""Lower bound of divisors, as a share of the image: far less than the volume of a voxel."""


def to_corners(boxes: Tensor) -> Tensor:
    """Turn center-size boxes (…, 6) into corners (z0, y0, x0, z1, y1, x1)."""
    center, size = boxes.chunk(2, dim=-1)
    return torch.cat([center - size / 2, center + size / 2], dim=-1)


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """Compare boxes pair by pair with the generalized IoU (Rezatofighi et al., CVPR 2019).

    MONAI's version adds an epsilon of 1e-7 to the volumes, as much as a nodule's share of a CT;
    this one is exact for every box of at least one voxel.

    Args:
        first: (…, 6) center-size boxes.
        second: as first; the leading dimensions broadcast.

    Returns:
        (…) in [-1, 1]: 1 for identical boxes, near -1 for small boxes far apart. Boxes without
        volume have a finite value.
    """
    first_corners, second_corners = to_corners(first), to_corners(second)
    first_low, first_high = first_corners.chunk(2, dim=-1)
    second_low, second_high = second_corners.chunk(2, dim=-1)
    inner = _volume(first_low.maximum(second_low), first_high.minimum(second_high))
    outer = _volume(first_low.minimum(second_low), first_high.maximum(second_high))
    # All volumes are computed from corners, so that equal boxes have a GIoU of exactly 1.
    union = _volume(first_low, first_high) + _volume(second_low, second_high) - inner
    iou = inner / union.clamp(min=_SMALLEST_VOLUME)
    return iou - (outer - union) / outer.clamp(min=_SMALLEST_VOLUME)


def _volume(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(dim=-1)
