"""Learned grids at other sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import adaptive_avg_pool3d, conv_transpose3d, interpolate

from model.network.resampling import inflate_kernel, mean_pool_depth, resample_grid, sum_pool_depth

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))


def grid(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_shrinking_averages() -> None:
    values = grid(1, 5, 8, 6, 4)
    shrunk = resample_grid(values, (2, 3, 4))
    by_hand = values.reshape(1, 5, 2, 4, 3, 2, 4).mean((3, 5))
    torch.testing.assert_close(shrunk, by_hand)


def test_shrinking_to_odd_sizes_averages_too() -> None:
    values = grid(1, 5, 8, 6, 5)
    torch.testing.assert_close(
        resample_grid(values, (3, 5, 2)), adaptive_avg_pool3d(values, (3, 5, 2))
    )


def test_growing_interpolates() -> None:
    volume, plane = grid(1, 5, 2, 3, 4), grid(1, 5, 3, 4)
    torch.testing.assert_close(
        resample_grid(volume, (4, 5, 9)), interpolate(volume, (4, 5, 9), mode="trilinear")
    )
    torch.testing.assert_close(
        resample_grid(plane, (5, 9)), interpolate(plane, (5, 9), mode="bicubic")
    )


def test_axes_that_shrink_do_so_before_the_others_grow() -> None:
    values = grid(1, 5, 8, 3, 4)
    averaged = values.reshape(1, 5, 2, 4, 3, 4).mean(3)
    expected = interpolate(averaged, (2, 6, 7), mode="trilinear")
    torch.testing.assert_close(resample_grid(values, (2, 6, 7)), expected)


@given(SIZES, SIZES)
def test_a_constant_grid_stays_constant(
    old: tuple[int, int, int], new: tuple[int, int, int]
) -> None:
    values = grid(1, 3, 1, 1, 1).expand(1, 3, *old)
    torch.testing.assert_close(
        resample_grid(values, new), values[..., :1, :1, :1].expand(1, 3, *new)
    )


def test_a_grid_of_the_same_size_is_left_alone() -> None:
    values = grid(1, 3, 2, 3, 4)
    assert resample_grid(values, (2, 3, 4)) is values


@given(SIZES, SIZES)
def test_scaled_a_constant_kernel_keeps_its_response(
    old: tuple[int, int, int], new: tuple[int, int, int]
) -> None:
    kernel = grid(4, 3, 1, 1, 1).expand(4, 3, *old)
    scaled = resample_grid(kernel, new, scale=True)
    torch.testing.assert_close(scaled.sum((2, 3, 4)), kernel.sum((2, 3, 4)), atol=1e-5, rtol=1e-5)


def test_scaled_any_kernel_keeps_its_response_when_cells_are_whole() -> None:
    kernel = grid(4, 3, 8, 16, 4)
    scaled = resample_grid(kernel, (2, 8, 4), scale=True)
    torch.testing.assert_close(scaled.sum((2, 3, 4)), kernel.sum((2, 3, 4)), atol=1e-5, rtol=1e-5)


def test_from_14_to_16_pixels_a_smooth_kernel_keeps_its_response() -> None:
    place = torch.linspace(-1, 1, 14)
    kernel = torch.exp(-(place[:, None] ** 2) - (place - 0.3) ** 2)[None, None]
    scaled = resample_grid(kernel, (16, 16), scale=True)
    torch.testing.assert_close(scaled.sum(), kernel.sum(), atol=0, rtol=0.002)


def test_half_precision_is_computed_in_single() -> None:
    values = grid(1, 5, 8, 6, 5).bfloat16()
    resampled = resample_grid(values, (3, 5, 7))
    assert resampled.dtype == torch.bfloat16
    torch.testing.assert_close(resampled, resample_grid(values.float(), (3, 5, 7)).bfloat16())


@given(st.integers(1, 16))
def test_an_inflated_kernel_sees_a_stack_as_one_slice(depth: int) -> None:
    kernel, plane = grid(4, 3, 5, 5), grid(3, 5, 5)
    stack = plane.unsqueeze(1).expand(3, depth, 5, 5)
    response = torch.einsum("oidhw,idhw->o", inflate_kernel(kernel, depth), stack)
    torch.testing.assert_close(
        response, torch.einsum("oihw,ihw->o", kernel, plane), atol=1e-4, rtol=1e-5
    )


def test_sum_pooling_adds_neighboring_slices() -> None:
    kernel = grid(4, 3, 8, 2, 2)
    pooled = sum_pool_depth(kernel, 2)
    torch.testing.assert_close(
        pooled, torch.stack([kernel[:, :, :4].sum(2), kernel[:, :, 4:].sum(2)], 2)
    )
    assert sum_pool_depth(kernel, 8) is kernel


def test_mean_pooled_upsampling_writes_the_mean_of_the_slices_it_stands_for() -> None:
    kernel, features = grid(3, 4, 2, 2, 2), grid(1, 3, 5, 6, 7)
    thick = conv_transpose3d(features, kernel, stride=2)
    flat = conv_transpose3d(features, mean_pool_depth(kernel, 1), stride=(1, 2, 2))
    torch.testing.assert_close(flat, thick.unflatten(2, (5, 2)).mean(3))


def test_a_kernel_is_not_folded_unevenly() -> None:
    for fold in (sum_pool_depth, mean_pool_depth):
        with pytest.raises(ValueError, match="8 slices cannot be pooled to 3"):
            fold(grid(1, 1, 8, 2, 2), 3)
