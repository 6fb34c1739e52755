"""From voxels to patch embeddings: one learned kernel and one learned grid for every image size.

The kernel is a cube of P voxels an edge. An image whose patches are thinner than P slices gets the
same kernel with neighbouring slices added (the paper's section 3.2), so that a radiograph, a thick
and a thin CT of one body have embeddings of one kind. Positions are one 3D grid, resampled to the
patches an image has.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d

from model.network.resampling import resample_grid, sum_pool_depth

INITIAL_STD = 0.02


class PatchConv(nn.Conv3d):
    """The patch embedding: a convolution whose stride is its kernel, thinned to an image's patches.

    Args:
        channels: of the image.
        hidden_size: of the embedding.
        patch_size: edge of the cubic kernel in voxels, a power of two.

    Raises:
        ValueError: if `patch_size` is not a power of two.
    """

    def __init__(self, channels: int, hidden_size: int, patch_size: int) -> None:
        if patch_size < 1 or patch_size & (patch_size - 1):
            raise ValueError(f"patch_size is {patch_size}: it has to be a power of two")
        super().__init__(channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels: Tensor, patch_depth: int) -> Tensor:  # type: ignore[override]
        """Embed the patches of one image.

        Args:
            pixels: (channel, depth, height, width), each axis a multiple of the patch's.
            patch_depth: slices that one patch covers, a divisor of the kernel's depth.

        Returns:
            (patches, hidden), in the order depth, height, width.
        """
        kernel = sum_pool_depth(self.weight, patch_depth)
        patches = conv3d(pixels.unsqueeze(0), kernel, self.bias, stride=kernel.shape[2:])
        return patches.flatten(2).squeeze(0).transpose(0, 1)


class GridPositions(nn.Module):
    """Learned positions on a 3D grid, resampled to the patches of an image.

    Args:
        hidden_size: of the embedding.
        grid: learned steps along depth, height and width.
    """

    def __init__(self, hidden_size: int, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, hidden_size, *grid))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the positions of an untrained model."""
        nn.init.trunc_normal_(self.weight, std=INITIAL_STD)

    def forward(self, patches: tuple[int, int, int]) -> Tensor:
        """Return (patches, hidden) for a grid of patches, in the order depth, height, width."""
        return resample_grid(self.weight, patches).flatten(2).squeeze(0).transpose(0, 1)


class LearnedRow(nn.Module):
    """One learned row as a module of its own: PEFT trains and saves modules, not parameters.

    Args:
        hidden_size: of the row; its shape is (1, hidden).
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the row of an untrained model."""
        nn.init.trunc_normal_(self.weight, std=INITIAL_STD)
