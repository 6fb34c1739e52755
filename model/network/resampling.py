"""Learned grids at other sizes: position embeddings and convolution kernels.

Grids learned at one size serve every other: position embeddings follow an image's own patch grid,
kernels are carried from two to three dimensions when a checkpoint is read, and a kernel made for a
thick block of slices is folded onto fewer when an image has fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor
from torch.nn.functional import interpolate


def resample_grid(grid: Tensor, size: Sequence[int], *, scale: bool = False) -> Tensor:
    """Shrink axes by averaging, then grow the others by interpolation.

    Averaging where the grid shrinks keeps what every cell knows; interpolation alone would skip
    cells. Growth is trilinear for grids with depth and bicubic for those without, cell centres
    mapped to cell centres. Computed in single precision at least.

    Args:
        grid: (batch, channels, depth, height, width) or (batch, channels, height, width).
        size: the new size of the last two or three axes.
        scale: multiply by old volume over new volume, so that a convolution kernel's sum, and with
            it the response to a constant image, stays what it was.

    Returns:
        The grid at `size`, in the type of `grid`.
    """
    old = grid.shape[2:]
    shrunk = [min(before, after) for before, after in zip(old, size, strict=True)]
    values = grid if grid.element_size() >= 4 else grid.float()
    if shrunk != list(old):
        values = interpolate(values, size=shrunk, mode="area")
    if shrunk != list(size):
        mode = "trilinear" if len(size) == 3 else "bicubic"
        values = interpolate(values, size=list(size), mode=mode, align_corners=False)
    if scale:
        values = values * (prod(old) / prod(size))
    return values.to(grid.dtype)


def inflate_kernel(kernel: Tensor, depth: int) -> Tensor:
    """Spread a 2D kernel evenly over `depth` slices.

    A stack of equal slices gets the response that the kernel gives to one of them.

    Args:
        kernel: (out, in, height, width).
        depth: slices of the new kernel.

    Returns:
        (out, in, depth, height, width).
    """
    return (kernel / depth).unsqueeze(2).repeat(1, 1, depth, 1, 1)


def sum_pool_depth(kernel: Tensor, depth: int) -> Tensor:
    """Fold a kernel onto fewer slices by adding neighbouring ones.

    The response to a volume that is constant along depth stays what it was.

    Args:
        kernel: (out, in, kernel depth, height, width).
        depth: slices to fold onto; the kernel's depth is a multiple of it.

    Returns:
        (out, in, depth, height, width); the kernel itself when there is nothing to fold.
    """
    return kernel if kernel.shape[2] == depth else _groups(kernel, depth).sum(3)


def mean_pool_depth(kernel: Tensor, depth: int) -> Tensor:
    """Fold a transposed convolution's kernel onto fewer slices by averaging neighbouring ones.

    The slices of such a kernel write different output slices: an output slice that stands for
    several of them gets their mean.

    Args:
        kernel: (in, out, kernel depth, height, width).
        depth: slices to fold onto; the kernel's depth is a multiple of it.

    Returns:
        (in, out, depth, height, width); the kernel itself when there is nothing to fold.
    """
    return kernel if kernel.shape[2] == depth else _groups(kernel, depth).mean(3)


def _groups(kernel: Tensor, depth: int) -> Tensor:
    if depth < 1 or kernel.shape[2] % depth:
        raise ValueError(f"a kernel of {kernel.shape[2]} slices cannot be folded onto {depth}")
    return kernel.unflatten(2, (depth, -1))
