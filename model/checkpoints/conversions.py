"""Conversions of tensors of a checkpoint to tensors of the model.

Every function takes the tensor of the checkpoint and the target tensor of the model, and returns
the new value of the target: the tensor of the checkpoint itself if no conversion is needed. On the
meta device the functions compute the resulting shapes only.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from model.network.resampling import inflate_kernel, resample_grid

SEGVOL_PATCH = (4, 16, 16)
"""Voxels of SegVol's patch along depth, height and width."""

SEGVOL_GRID = (8, 16, 16)
"""Patches of SegVol's fixed input of 32 x 256 x 256 voxels."""

# Channel means and standard deviations of ImageNet, in pixels of 0 to 255, as SAM normalizes.
SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)
SAM_WHITE = 255
"""The brightest pixel of SAM's images; the model's pixels are 0 to 1."""


def resize_kernel_2d(kernel: Tensor, target: Tensor) -> Tensor:
    """Convert a 2D patch kernel (out, in, height, width) to a cubic one of another edge.

    The responses to a constant image and to a stack of equal slices do not change.
    """
    depth, *plane = target.shape[2:]
    return inflate_kernel(resample_grid(kernel.float(), plane, scale=True), depth)


def class_position(positions: Tensor, _target: Tensor) -> Tensor:
    """Take the row of the class token, the first of (1 + height · width, hidden)."""
    return positions[:1]


def patch_positions(positions: Tensor, target: Tensor) -> Tensor:
    """Take the square grid that follows the class token's row and repeat it along depth."""
    edge = isqrt(len(positions) - 1)
    grid = positions[1:].float().unflatten(0, (edge, edge)).permute(2, 0, 1).unsqueeze(0)
    return _repeat_along_depth(grid, target)


def add_rows(table: Tensor, target: Tensor) -> Tensor:
    """Initialize the rows of new tokens with the mean of the rows of old tokens."""
    new = len(target) - len(table)
    if new <= 0:
        return table
    # In half precision a sum over 32000 rows could lose digits.
    mean = table.mean(0, keepdim=True, dtype=torch.float32).to(table.dtype)
    return torch.cat([table, mean.expand(new, -1)])


def keep_rows(table: Tensor, target: Tensor) -> Tensor:
    """Take the first rows; rows that the checkpoint lacks keep the values of the target."""
    if len(table) == len(target):
        return table
    return torch.cat([table[: len(target)], target[len(table) :].to(table)])


def segvol_kernel(weight: Tensor, target: Tensor) -> Tensor:
    """Convert SegVol's linear patch embedding of one channel to a kernel of three channels.

    The 1024 inputs are ordered (depth 4, height 16, width 16, channel). The response to three equal
    channels is that of the original to one.
    """
    kernel = weight.float().unflatten(1, (1, *SEGVOL_PATCH))
    resized = resample_grid(kernel, target.shape[2:], scale=True)
    # Grayscale images have equal channels: each gets an equal share of the response.
    channels = target.shape[1]
    return resized.repeat(1, channels, 1, 1, 1) / channels


def segvol_positions(positions: Tensor, target: Tensor) -> Tensor:
    """Arrange SegVol's rows (1, 2048, hidden) in their 3D grid and resample it."""
    grid = positions.float().transpose(1, 2).unflatten(2, SEGVOL_GRID)
    return resample_grid(grid, target.shape[2:])


def mean_over_space(weight: Tensor, _target: Tensor) -> Tensor:
    """Average over space: SegVol's norm has a weight for each channel and voxel."""
    return weight.float().flatten(1).mean(1) if weight.ndim > 1 else weight


def sam_kernel(kernel: Tensor, target: Tensor) -> Tensor:
    """Convert SAM's patch kernel for normalized pixels to a cubic kernel for pixels of 0 to 1."""
    std = torch.tensor(SAM_STD, device=kernel.device).view(-1, 1, 1) / SAM_WHITE
    return resize_kernel_2d(kernel.float() / std, target)


def sam_bias(bias: Tensor, _target: Tensor, kernel: Tensor) -> Tensor:
    """Fold the mean that SAM's normalization subtracts from its pixels into the bias."""
    mean, std = (torch.tensor(channels, device=kernel.device) for channels in (SAM_MEAN, SAM_STD))
    return bias - kernel.float().sum((2, 3)) @ (mean / std)


def sam_positions(positions: Tensor, target: Tensor) -> Tensor:
    """Resample SAM's grid (1, height, width, hidden) and repeat it along depth."""
    return _repeat_along_depth(positions.float().permute(0, 3, 1, 2), target)


def add_low_rank(down: Tensor, weight: Tensor, up: Tensor, *, scale: float) -> Tensor:
    """Add a LoRA update, (out, rank) times (rank, in), to a weight (out, in)."""
    return weight.float() + scale * (up.float() @ down.float())


def _repeat_along_depth(grid: Tensor, target: Tensor) -> Tensor:
    depth, *plane = target.shape[2:]
    return resample_grid(grid, plane).unsqueeze(2).repeat(1, 1, depth, 1, 1)
