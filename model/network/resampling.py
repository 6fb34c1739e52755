"""Resampling of learned grids: position embeddings and convolution kernels.

Position embeddings are resampled to the patch grid of an image, 2D kernels are inflated to 3D when
a checkpoint is read, and the depth of a kernel is pooled when an image has fewer slices a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor
from torch.nn.functional import interpolate


def resample_grid(grid: Tensor, size: Sequence[int], *, scale: bool = False) -> Tensor:
    """Shrink axes by averaging, then enlarge the others by interpolation.

    Averaging uses every cell of a grid that shrinks; interpolation alone would skip cells.
    Enlarging is trilinear for 3D grids and bicubic for 2D grids, with cell centers aligned.
    Computed in single precision or better.

    Args:
        grid: (batch, channels, depth, height, width) or (batch, channels, height, width).
        size: the new size of the last two or three axes.
        scale: multiply by old over new number of cells, which preserves the sum of a convolution
            kernel and so its response to a constant image.

    Returns:
        The grid at `size`, in the dtype of `grid`.
    """
    old = grid.shape[2:]
    shrunk = [min(before, after) for before, after in zip(old, size, strict=True)]
    values = grid if grid.element_size() >= 4 else grid.float()  # 4 bytes: single precision
    if shrunk != list(old):
        values = interpolate(values, size=shrunk, mode="area")
    if shrunk != list(size):
        mode = "trilinear" if len(size) == 3 else "bicubic"
        values = interpolate(values, size=list(size), mode=mode, align_corners=False)
    if scale:
        values = values * (prod(old) / prod(size))
    return values.to(grid.dtype)


def inflate_kernel(kernel: Tensor, depth: int) -> Tensor:
    """Inflate a 2D kernel to 3D by repeating it over `depth` slices, divided by `depth`.

    The response to a stack of equal slices is that of the 2D kernel to one of them.

    Args:
        kernel: (out, in, height, width).
        depth: depth of the 3D kernel in slices.

    Returns:
        (out, in, depth, height, width).
    """
    return (kernel / depth).unsqueeze(2).repeat(1, 1, depth, 1, 1)


def sum_pool_depth(kernel: Tensor, depth: int) -> Tensor:
    """Reduce the depth of a kernel by sum-pooling neighboring slices.

    The response to a volume that is constant along depth does not change.

    Args:
        kernel: (out, in, kernel depth, height, width).
        depth: the new depth, a divisor of the kernel's.

    Returns:
        (out, in, depth, height, width); the kernel itself if it has that depth already.
    """
    return kernel if kernel.shape[2] == depth else _grouped_slices(kernel, depth).sum(3)


def mean_pool_depth(kernel: Tensor, depth: int) -> Tensor:
    """Reduce the depth of a transposed convolution's kernel by mean-pooling neighboring slices.

    Each slice of such a kernel produces one output slice; the pooled slice produces their mean.

    Args:
        kernel: (in, out, kernel depth, height, width).
        depth: the new depth, a divisor of the kernel's.

    Returns:
        (in, out, depth, height, width); the kernel itself if it has that depth already.
    """
    return kernel if kernel.shape[2] == depth else _grouped_slices(kernel, depth).mean(3)


def _grouped_slices(kernel: Tensor, depth: int) -> Tensor:
    if depth < 1 or kernel.shape[2] % depth:
        raise ValueError(f"a kernel of {kernel.shape[2]} slices cannot be pooled to {depth}")
    return kernel.unflatten(2, (depth, -1))
