"""Images of any shape under a token budget."""

from collections.abc import Iterator
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.data.token_grid import TokenGrid, plan

EDGES = st.integers(1, 5000)


def paper_plan(shape: tuple[int, int, int], max_tokens: int = 144) -> TokenGrid:
    return plan(shape, patch_size=16, pool=2, max_tokens=max_tokens, max_depth_tokens=4)


@pytest.mark.parametrize(
    ("slices", "patch", "pool", "tokens"),
    [
        (1, 1, 1, 1),
        (4, 1, 1, 4),
        (5, 1, 2, 3),
        (8, 1, 2, 4),
        (16, 2, 2, 4),
        (32, 4, 2, 4),
        (64, 8, 2, 4),
        (96, 16, 2, 3),
        (128, 16, 2, 4),
        (1000, 16, 2, 4),
    ],
)
def test_depth_of_the_released_code(slices: int, patch: int, pool: int, tokens: int) -> None:
    grid = paper_plan((slices, 512, 512))
    assert (grid.patch[0], grid.pool[0], grid.tokens[0]) == (patch, pool, tokens)


@pytest.mark.parametrize(
    ("height", "width", "budget", "content", "tokens"),
    [
        (1024, 1024, 144, (384, 384), (12, 12)),
        (2544, 3056, 144, (346, 416), (11, 13)),
        (480, 640, 144, (320, 427), (10, 14)),
        (512, 512, 36, (192, 192), (6, 6)),
        (512, 512, 256, (512, 512), (16, 16)),
    ],
)
def test_plane_of_the_released_code(
    height: int, width: int, budget: int, content: tuple[int, int], tokens: tuple[int, int]
) -> None:
    grid = paper_plan((1, height, width), budget)
    assert grid.content[1:] == content
    assert grid.tokens == (1, *tokens)


def test_the_budget_left_by_depth_goes_to_the_plane() -> None:
    assert paper_plan((128, 512, 512)).content == (128, 192, 192)
    assert paper_plan((96, 512, 512)).tokens == (3, 6, 6)  # 48 a slab: 6 × 6 fits, 7 × 7 does not


@given(
    depth=st.integers(1, 1000),
    height=EDGES,
    width=EDGES,
    patch_size=st.sampled_from([1, 4, 8, 16]),
    pool=st.integers(1, 3),
    max_tokens=st.integers(1, 600),
    max_depth_tokens=st.integers(1, 9),
    seed=st.none() | st.integers(0, 99),
)
@example(1, 1, 1, 16, 2, 1, 1, None)
@example(1, 5000, 50, 16, 2, 1, 4, None)
@example(1000, 1, 5000, 16, 2, 2, 4, 0)
def test_every_image_gets_a_grid_in_its_budget(
    depth: int,
    height: int,
    width: int,
    patch_size: int,
    pool: int,
    max_tokens: int,
    max_depth_tokens: int,
    seed: int | None,
) -> None:
    grid = plan(
        (depth, height, width),
        patch_size=patch_size,
        pool=pool,
        max_tokens=max_tokens,
        max_depth_tokens=max_depth_tokens,
        rng=None if seed is None else np.random.default_rng(seed),
    )
    assert 1 <= grid.num_tokens <= max_tokens
    assert grid.tokens[0] <= max_depth_tokens
    assert patch_size % grid.patch[0] == 0
    token = [p * q for p, q in zip(grid.patch, grid.pool, strict=True)]
    for content, size, voxels in zip(grid.content, grid.size, token, strict=True):
        assert size % voxels == 0
        assert 0 <= size - content < voxels  # padded to whole tokens, never by a whole one
        assert content >= 1
    assert grid.content[0] <= depth


def scales(height: int, width: int, stride: int, budget: int) -> Iterator[Fraction]:
    """All scales at which an axis fills its last token, with those that fit the budget."""
    for tokens in range(1, budget + 1):
        for edge in (height, width):
            scale = Fraction(stride * tokens, edge)
            if needed(height, width, stride, scale) <= budget:
                yield scale


def needed(height: int, width: int, stride: int, scale: Fraction) -> int:
    return ceil(scale * height / stride) * ceil(scale * width / stride)


@given(EDGES, EDGES, st.sampled_from([16, 32]), st.integers(1, 300))
@example(1, 1, 32, 1)
@example(5000, 50, 32, 1)
@example(50, 5000, 32, 99)
def test_the_plane_has_the_largest_scale(height: int, width: int, stride: int, budget: int) -> None:
    largest = max(scales(height, width, stride, budget))
    assert needed(height, width, stride, largest * (1 + Fraction(1, 10**12))) > budget
    grid = plan(
        (1, height, width), patch_size=16, pool=stride // 16, max_tokens=budget, max_depth_tokens=4
    )
    assert grid.content[1:] == tuple(max(1, round(largest * edge)) for edge in (height, width))


@given(EDGES, EDGES, st.integers(1, 300))
def test_a_turned_image_has_a_turned_grid(height: int, width: int, budget: int) -> None:
    upright = paper_plan((1, height, width), budget)
    turned = paper_plan((1, width, height), budget)
    assert turned.content == (1, *upright.content[:0:-1])


def test_training_varies_the_depth_of_a_patch() -> None:
    rng = np.random.default_rng(0)
    grids = [
        plan((44, 9, 9), patch_size=16, pool=2, max_tokens=144, max_depth_tokens=4, rng=rng)
        for _ in range(400)
    ]
    # 44 slices are 5.5 a patch, 0.04 octaves below the border of 4 and 8: a normal of 0.25 octaves
    # crosses it in 44 % of the draws and reaches no other border.
    thick = sum(grid.patch[0] == 8 for grid in grids)
    assert {grid.patch[0] for grid in grids} == {4, 8}
    assert 0.36 < thick / len(grids) < 0.52


def test_few_slices_are_kept_apart_in_training_too() -> None:
    rng = np.random.default_rng(0)
    grids = {
        plan((4, 64, 64), patch_size=16, pool=2, max_tokens=144, max_depth_tokens=4, rng=rng)
        for _ in range(20)
    }
    assert grids == {paper_plan((4, 64, 64))}


def test_no_image_and_no_budget_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(0, 4, 4\) voxels is empty"):
        paper_plan((0, 4, 4))
    with pytest.raises(ValueError, match="0 tokens, 4 along depth, is below one token"):
        paper_plan((1, 4, 4), max_tokens=0)
