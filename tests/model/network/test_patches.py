"""Patch embeddings and positions of images of any depth and size."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv3d

from model.network.patches import GridPositions, LearnedRow, PatchConv

THICKNESSES = (1, 2, 4, 8, 16)


@pytest.fixture
def conv() -> PatchConv:
    torch.manual_seed(0)
    return PatchConv(3, 24, 16).requires_grad_(False)


@pytest.mark.parametrize("thickness", THICKNESSES)
@pytest.mark.parametrize("patches", [1, 3])
def test_a_repeated_slice_is_embedded_as_itself(
    conv: PatchConv, thickness: int, patches: int
) -> None:
    plane = torch.rand(3, 1, 32, 48)
    of_plane = conv(plane, 1)
    of_stack = conv(plane.expand(3, thickness * patches, 32, 48), thickness)
    assert of_stack.shape == (patches * 2 * 3, 24)
    for slab in of_stack.split(2 * 3):
        torch.testing.assert_close(slab, of_plane, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("thickness", THICKNESSES)
def test_thickness_is_measured_in_the_image_not_in_slices(conv: PatchConv, thickness: int) -> None:
    """A volume of thick slices is embedded as the same volume cut into 16 thin ones."""
    coarse = torch.rand(3, 2 * thickness, 16, 16)
    fine = coarse.repeat_interleave(16 // thickness, dim=1)
    torch.testing.assert_close(conv(coarse, thickness), conv(fine, 16), atol=1e-5, rtol=1e-5)


def test_full_depth_is_the_plain_convolution(conv: PatchConv) -> None:
    pixels = torch.rand(3, 32, 48, 16)
    plain = conv3d(pixels[None], conv.weight, conv.bias, stride=16)[0]
    torch.testing.assert_close(conv(pixels, 16), plain.permute(1, 2, 3, 0).flatten(0, 2))


def test_patches_come_in_the_order_of_voxels(conv: PatchConv) -> None:
    pixels = torch.rand(3, 4, 32, 48)
    embedded = conv(pixels, 2).unflatten(0, (2, 2, 3))
    for d, h, w in [(0, 0, 2), (0, 1, 0), (1, 0, 1)]:
        patch = pixels[:, 2 * d : 2 * d + 2, 16 * h : 16 * h + 16, 16 * w : 16 * w + 16]
        torch.testing.assert_close(conv(patch, 2)[0], embedded[d, h, w], atol=1e-5, rtol=1e-5)


def test_thin_patches_train_the_whole_kernel() -> None:
    conv = PatchConv(1, 2, 4)
    conv(torch.rand(1, 1, 4, 4), 1).sum().backward()
    assert isinstance(conv.weight.grad, torch.Tensor)
    torch.testing.assert_close(conv.weight.grad[:, :, 0], conv.weight.grad[:, :, 3])
    assert conv.weight.grad.abs().min() > 0


def test_keys_are_those_of_a_convolution() -> None:
    assert {key: tuple(of.shape) for key, of in PatchConv(3, 24, 8).state_dict().items()} == {
        "weight": (24, 3, 8, 8, 8),
        "bias": (24,),
    }
    assert isinstance(PatchConv(3, 24, 8), nn.Conv3d)


@pytest.mark.parametrize("edge", [0, 14])
def test_an_edge_that_cannot_be_halved_is_refused(edge: int) -> None:
    with pytest.raises(ValueError, match=f"patch_size is {edge}: it has to be a power of two"):
        PatchConv(3, 24, edge)


def test_positions_on_their_own_grid_are_what_was_learned() -> None:
    positions = GridPositions(5, (2, 3, 4))
    torch.testing.assert_close(
        positions((2, 3, 4)), positions.weight[0].permute(1, 2, 3, 0).flatten(0, 2)
    )


def test_one_slice_has_the_mean_of_the_positions_along_depth() -> None:
    positions = GridPositions(5, (4, 3, 2))
    expected = positions.weight[0].mean(1).permute(1, 2, 0).flatten(0, 1)
    torch.testing.assert_close(positions((1, 3, 2)), expected)


@given(st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)))
def test_positions_keep_their_direction_on_every_grid(patches: tuple[int, int, int]) -> None:
    positions = GridPositions(3, (4, 6, 8)).requires_grad_(False)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (4, 6, 8)), indexing="ij")
    positions.weight.copy_(torch.stack(axes)[None])
    resampled = positions(patches).unflatten(0, patches)
    for axis, steps in enumerate(patches):
        along = resampled.movedim(axis, 0)[..., axis]
        assert steps == 1 or (along.diff(dim=0) > -1e-6).all()
        assert steps == 1 or (along[-1] > along[0]).all()
        torch.testing.assert_close(along, -along.flip(0))  # centered on the image


def test_a_row_is_a_module_with_one_parameter() -> None:
    assert {key: tuple(of.shape) for key, of in LearnedRow(7).state_dict().items()} == {
        "weight": (1, 7)
    }
