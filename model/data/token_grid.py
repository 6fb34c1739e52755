"""How an image of any size is cut into tokens: depth-adaptive patches under a token budget.

The paper, section 3.2 (equation 3), and the released code's rule where the paper gives none.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, log2

import numpy as np

DEPTH_POOL = 2
"""Patches along depth that one token covers, where there are enough slices to pool."""

DEPTH_NOISE_OCTAVES = 0.25
"""Standard deviation of training's noise on the depth of a patch (released code)."""


@dataclass(frozen=True)
class TokenGrid:
    """The way from an image's voxels to its tokens; all triples are (depth, height, width).

    content: voxels of the image after resizing.
    size: voxels after padding at the far end, a multiple of what one token covers.
    patch: voxels that one patch covers; the depth is a power of two up to the in-plane edge.
    pool: patches that one image token of the language model covers.
    """

    content: tuple[int, int, int]
    size: tuple[int, int, int]
    patch: tuple[int, int, int]
    pool: tuple[int, int, int]

    @property
    def patches(self) -> tuple[int, int, int]:
        """Patches along each axis: the localiser's feature grid."""
        depth, height, width = (n // p for n, p in zip(self.size, self.patch, strict=True))
        return depth, height, width

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Tokens of the language model along each axis."""
        depth, height, width = (n // p for n, p in zip(self.patches, self.pool, strict=True))
        return depth, height, width

    @property
    def num_tokens(self) -> int:
        """Tokens that the image takes in the language model, without boi and eoi."""
        depth, height, width = self.tokens
        return depth * height * width


def plan(
    shape_dhw: tuple[int, int, int],
    *,
    patch_size: int,
    pool: int,
    max_tokens: int,
    max_depth_tokens: int,
    rng: np.random.Generator | None = None,
) -> TokenGrid:
    """Choose how an image is resized, padded and cut so that it fits a budget of tokens.

    Depth comes first: few slices are one patch each; more get patches of 2, 4, … slices, pooled in
    pairs, by equation 3 of the paper with the released code's division by what is pooled. Depth is
    padded to whole tokens, and resampled only if the budget's tokens do not reach all slices. The
    plane gets what is left of the budget and is scaled, up or down and alike along both axes, to
    use it best.

    Args:
        shape_dhw: voxels of the image along depth, height and width.
        patch_size: edge of the patch kernel in voxels, a power of two.
        pool: patches that one token covers along each in-plane axis.
        max_tokens: budget of the image, without boi and eoi.
        max_depth_tokens: budget along depth.
        rng: if given, the depth of a patch varies by about half an octave: training's augmentation.

    Raises:
        ValueError: if the image has no voxels or the budget no tokens.
    """
    if min(shape_dhw) < 1:
        raise ValueError(f"an image of {shape_dhw} voxels has nothing to see")
    if min(max_tokens, max_depth_tokens) < 1:
        raise ValueError(
            f"a budget of {max_tokens} tokens, {max_depth_tokens} along depth, holds no image"
        )
    depth, height, width = shape_dhw
    depth_budget = min(max_depth_tokens, max_tokens)
    patch_depth, depth_pool = _depth_patch(depth, patch_size, depth_budget, rng)
    slab = patch_depth * depth_pool
    depth_tokens = min(_ceil_div(depth, slab), depth_budget)
    stride = patch_size * pool
    rows, columns = _fit_plane(height, width, stride, max_tokens // depth_tokens)
    return TokenGrid(
        content=(min(depth, depth_tokens * slab), rows, columns),
        size=(
            depth_tokens * slab,
            _ceil_div(rows, stride) * stride,
            _ceil_div(columns, stride) * stride,
        ),
        patch=(patch_depth, patch_size, patch_size),
        pool=(depth_pool, pool, pool),
    )


def _depth_patch(
    depth: int, patch_size: int, budget: int, rng: np.random.Generator | None
) -> tuple[int, int]:
    """Return the slices of a patch and the patches of a token along depth."""
    if depth <= budget:
        return 1, 1
    octaves = log2(depth / (DEPTH_POOL * budget))
    if rng is not None:
        octaves += rng.normal(scale=DEPTH_NOISE_OCTAVES)
    return 1 << min(max(round(octaves), 0), patch_size.bit_length() - 1), DEPTH_POOL


def _fit_plane(height: int, width: int, stride: int, budget: int) -> tuple[int, int]:
    """Return the pixels of a plane at the largest scale that its budget of tokens allows.

    The scale can only end where one axis fills its last token, so each axis is tried as that one.
    """
    rows = _full_tokens(height, width, budget)
    columns = _full_tokens(width, height, budget)
    # rows / height and columns / width are the two scales, compared without rounding.
    if rows * width >= columns * height:
        return stride * rows, max(1, round(stride * rows * width / height))
    return max(1, round(stride * columns * height / width)), stride * columns


def _full_tokens(filled: int, other: int, budget: int) -> int:
    """Return the most tokens t along an axis that fills them with t · ceil(t · a) in the budget.

    a = other / filled. With n the smallest integer whose square reaches a · budget, the other axis
    takes n tokens if at least one t fits between (n - 1) / a and budget / n, else n - 1. Integers
    throughout: a quotient of floats may fall on the wrong side of a token.
    """
    area = other * budget
    n = isqrt(_ceil_div(area, filled) - 1) + 1
    if area > (n - 1) * n * filled:
        return budget // n
    return (n - 1) * filled // other


def _ceil_div(value: int, by: int) -> int:
    return -(-value // by)
