"""Patch embeddings for images of every size: one learned kernel and one learned position grid.

The kernel is a cube with an edge of P voxels. For an image whose patches are thinner than P slices,
neighboring slices of the kernel are added up (the paper's section 3.2), so that radiographs, thick
and thin CTs of one body share one embedding. Positions are a 3D grid, resampled to the patch grid
of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d

from model.network.resampling import resample_grid, sum_pool_depth

INITIAL_STD = 0.02
"""Standard deviation of untrained embeddings, as usual for vision transformers."""


class PatchConv(nn.Conv3d):
    """The patch embedding: a convolution with stride = kernel size and a depth set per image.

    Args:
        channels: channels of the image.
        hidden_size: size of the embedding.
        patch_size: edge of the cubic kernel in voxels, a power of two.

    Raises:
        ValueError: if `patch_size` is not a power of two.
    """

    def __init__(self, channels: int, hidden_size: int, patch_size: int) -> None:
        # Pooling halves the depth of the kernel repeatedly.
        if patch_size < 1 or patch_size & (patch_size - 1):
            raise ValueError(f"patch_size is {patch_size}: it has to be a power of two")
        super().__init__(channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels: Tensor, patch_depth: int) -> Tensor:  # type: ignore[override]
        """Embed the patches of one image.

        Args:
            pixels: (channel, depth, height, width); each axis is a multiple of the patch size.
            patch_depth: slices that one patch covers, a divisor of the kernel's depth.

        Returns:
            (patches, hidden), in the order depth, height, width.
        """
        # The stride equals the pooled kernel: patches do not overlap.
        kernel = sum_pool_depth(self.weight, patch_depth)
        patches = conv3d(pixels.unsqueeze(0), kernel, self.bias, stride=kernel.shape[2:])
        return patches.flatten(2).squeeze(0).transpose(0, 1)


class GridPositions(nn.Module):
    """Learned position embeddings on a 3D grid, resampled to the patch grid of an image.

    Args:
        hidden_size: size of the embedding.
        grid: size of the learned grid along depth, height and width.
    """

    def __init__(self, hidden_size: int, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, hidden_size, *grid))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the positions."""
        nn.init.trunc_normal_(self.weight, std=INITIAL_STD)

    def forward(self, patches: tuple[int, int, int]) -> Tensor:
        """Return (patches, hidden) for a grid of patches, in the order depth, height, width."""
        return resample_grid(self.weight, patches).flatten(2).squeeze(0).transpose(0, 1)


class LearnedRow(nn.Module):
    """One learned vector (1, hidden) in its own module: PEFT trains and saves modules only.

    Args:
        hidden_size: length of the vector.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the vector."""
        nn.init.trunc_normal_(self.weight, std=INITIAL_STD)
