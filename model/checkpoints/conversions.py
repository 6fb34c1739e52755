"""How a tensor of another model becomes one of ours.

Every function takes the checkpoint's tensor and the one of ours that it is for, and returns what
ours shall hold: the checkpoint's tensor itself where there is nothing to do. On the meta device the
same functions say what shape comes out.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from model.network.resampling import inflate_kernel, resample_grid

SEGVOL_PATCH = (4, 16, 16)
SEGVOL_GRID = (8, 16, 16)
SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)


def resize_kernel_2d(kernel: Tensor, target: Tensor) -> Tensor:
    """Carry a 2D patch kernel (out, in, height, width) to our cube of another edge.

    The response to a constant image is kept, and so is that to a stack of equal slices.
    """
    depth, *plane = target.shape[2:]
    return inflate_kernel(resample_grid(kernel.float(), plane, scale=True), depth)


def class_position(positions: Tensor, _target: Tensor) -> Tensor:
    """Take the row of the class token, the first of (1 + height · width, hidden)."""
    return positions[:1]


def patch_positions(positions: Tensor, target: Tensor) -> Tensor:
    """Take the square grid behind the class token's row and repeat it along depth."""
    edge = isqrt(len(positions) - 1)
    grid = positions[1:].float().unflatten(0, (edge, edge)).permute(2, 0, 1).unsqueeze(0)
    return _repeat_along_depth(grid, target)


def add_rows(table: Tensor, target: Tensor) -> Tensor:
    """Give tokens that the vocabulary did not have the mean of those that it had."""
    new = len(target) - len(table)
    if new <= 0:
        return table
    mean = table.mean(0, keepdim=True, dtype=torch.float32).to(table.dtype)
    return torch.cat([table, mean.expand(new, -1)])


def keep_rows(table: Tensor, target: Tensor) -> Tensor:
    """Fill the first rows; rows that the checkpoint does not have stay as ours are."""
    if len(table) == len(target):
        return table
    return torch.cat([table[: len(target)], target[len(table) :].to(table)])


def segvol_kernel(weight: Tensor, target: Tensor) -> Tensor:
    """Turn SegVol's linear patch embedding of one channel into a kernel for three.

    Its rows of 1024 are ordered (depth 4, height 16, width 16, channel); three equal channels get
    the response that it gives to one.
    """
    kernel = weight.float().unflatten(1, (1, *SEGVOL_PATCH))
    resized = resample_grid(kernel, target.shape[2:], scale=True)
    channels = target.shape[1]
    return resized.repeat(1, channels, 1, 1, 1) / channels


def segvol_positions(positions: Tensor, target: Tensor) -> Tensor:
    """Lay SegVol's rows (1, 2048, hidden) on their grid and resample it."""
    grid = positions.float().transpose(1, 2).unflatten(2, SEGVOL_GRID)
    return resample_grid(grid, target.shape[2:])


def mean_over_space(weight: Tensor, _target: Tensor) -> Tensor:
    """Give a channel one value: SegVol normalises over channels and space together."""
    return weight.float().flatten(1).mean(1) if weight.ndim > 1 else weight


def sam_kernel(kernel: Tensor, target: Tensor) -> Tensor:
    """Carry SAM's patch kernel to ours and from its normalised pixels to ours of 0 to 1."""
    spread = torch.tensor(SAM_STD, device=kernel.device).view(-1, 1, 1) / 255
    return resize_kernel_2d(kernel.float() / spread, target)


def sam_bias(bias: Tensor, _target: Tensor, kernel: Tensor) -> Tensor:
    """Take what SAM's normalisation subtracts from its pixels off the bias of its kernel."""
    mean, spread = (torch.tensor(of, device=kernel.device) for of in (SAM_MEAN, SAM_STD))
    return bias - kernel.float().sum((2, 3)) @ (mean / spread)


def sam_positions(positions: Tensor, target: Tensor) -> Tensor:
    """Resample SAM's grid (1, height, width, hidden) and repeat it along depth."""
    return _repeat_along_depth(positions.float().permute(0, 3, 1, 2), target)


def add_low_rank(down: Tensor, weight: Tensor, up: Tensor, *, scale: float) -> Tensor:
    """Add a LoRA update, (out, rank) times (rank, in), to a weight (out, in)."""
    return weight.float() + scale * (up.float() @ down.float())


def _repeat_along_depth(grid: Tensor, target: Tensor) -> Tensor:
    depth, *plane = target.shape[2:]
    return resample_grid(grid, plane).unsqueeze(2).repeat(1, 1, depth, 1, 1)
