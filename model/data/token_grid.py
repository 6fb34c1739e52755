"""The token grid of an image of any size: depth-adaptive patches under a token budget.

Section 3.2 of the paper (equation 3), and the released code where the paper gives no rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, log2

import numpy as np

DEPTH_POOL = 2
"""Patches along depth that are pooled to one token, where there are enough slices."""

DEPTH_NOISE_OCTAVES = 0.25
"""Standard deviation of the augmentation of the patch depth, in octaves (released code)."""


@dataclass(frozen=True)
class TokenGrid:
    """How an image is resized, padded and divided; all triples are (depth, height, width).

    content: voxels of the image after resizing.
    size: voxels after padding at the far end, a multiple of the voxels of one token.
    patch: voxels that one patch covers; the depth is a power of two up to the in-plane edge.
    pool: patches that are pooled to one image token of the language model.
    """

    content: tuple[int, int, int]
    size: tuple[int, int, int]
    patch: tuple[int, int, int]
    pool: tuple[int, int, int]

    @property
    def patches(self) -> tuple[int, int, int]:
        """Patches along each axis: the feature grid of the localizer."""
        depth, height, width = (n // p for n, p in zip(self.size, self.patch, strict=True))
        return depth, height, width

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Tokens of the language model along each axis."""
        depth, height, width = (n // p for n, p in zip(self.patches, self.pool, strict=True))
        return depth, height, width

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the language model, without boi and eoi."""
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
    """Choose how an image is resized, padded and divided within a token budget.

    Depth comes first: few slices are one patch each; more have patches of 1, 2, 4, … slices, pooled
    in pairs, by equation 3 of the paper with the released code's division by the pooling. Depth is
    padded to whole tokens, and resampled only if the budget does not cover all slices. The plane
    has the rest of the budget and is scaled, equally along both axes, to use most of it.

    Args:
        shape_dhw: voxels of the image along depth, height and width.
        patch_size: edge of the patch kernel in voxels, a power of two.
        pool: patches that are pooled to one token along each in-plane axis.
        max_tokens: token budget of the image, without boi and eoi.
        max_depth_tokens: token budget along depth.
        rng: if given (training), the depth of a patch varies by `DEPTH_NOISE_OCTAVES`.

    Raises:
        ValueError: if the image has no voxels or the budget no tokens.
    """
    if min(shape_dhw) < 1:
        raise ValueError(f"an image of {shape_dhw} voxels is empty")
    if min(max_tokens, max_depth_tokens) < 1:
        raise ValueError(
            f"a budget of {max_tokens} tokens, {max_depth_tokens} along depth, is below one token"
        )
    depth, height, width = shape_dhw
    depth_budget = min(max_depth_tokens, max_tokens)
    patch_depth, depth_pool = _depth_patch(depth, patch_size, depth_budget, rng)
    slab = patch_depth * depth_pool  # slices of one token
    depth_tokens = min(_ceil_div(depth, slab), depth_budget)
    stride = patch_size * pool  # pixels of one token along an in-plane axis
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
    """Return along depth the slices of one patch and the patches of one token."""
    if depth <= budget:
        return 1, 1
    # Equation 3: the depth of a patch is the power of two nearest to the slices that it must cover,
    # at most the edge of the cubic kernel.
    octaves = log2(depth / (DEPTH_POOL * budget))
    if rng is not None:
        octaves += rng.normal(scale=DEPTH_NOISE_OCTAVES)
    return 1 << min(max(round(octaves), 0), patch_size.bit_length() - 1), DEPTH_POOL


def _fit_plane(height: int, width: int, stride: int, budget: int) -> tuple[int, int]:
    """Return the pixels (rows, columns) of a plane at the largest scale within the token budget.

    At the largest scale one axis fills its last token exactly; both axes are tried.
    """
    rows = _full_tokens(height, width, budget)
    columns = _full_tokens(width, height, budget)
    # rows / height and columns / width are the two scales, compared without rounding.
    if rows * width >= columns * height:
        return stride * rows, max(1, round(stride * rows * width / height))
    return max(1, round(stride * columns * height / width)), stride * columns


def _full_tokens(filled: int, other: int, budget: int) -> int:
    """Return the largest number of tokens t along one axis with t · ceil(t · a) <= budget.

    a = other / filled. With n the smallest integer whose square reaches a · budget, the other axis
    has n tokens if some t lies between (n - 1) / a and budget / n, else n - 1. Computed in
    integers, because float division can round to the wrong side of a token.
    """
    area = other * budget
    n = isqrt(_ceil_div(area, filled) - 1) + 1
    if area > (n - 1) * n * filled:
        return budget // n
    return (n - 1) * filled // other


def _ceil_div(value: int, by: int) -> int:
    return -(-value // by)
