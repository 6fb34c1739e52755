import pytest
import torch
from torch import nn

from model.network.localization.upscaling import DepthAwareUpsample, Upscaling


@pytest.mark.parametrize(("patch_depth", "factor"), [(1, 1), (2, 2), (4, 4), (8, 4), (16, 4)])
def test_depth_grows_no_further_than_the_patch_goes(patch_depth: int, factor: int) -> None:
    features = torch.randn(2, 16, 3, 4, 5)

    upscaled = Upscaling(16, 1e-5)(features, patch_depth)

    assert upscaled.shape == (2, 2, 3 * factor, 16, 20)


@pytest.mark.parametrize("patch_depth", [1, 2, 4])
def test_a_kernel_constant_along_depth_gives_the_2d_result_on_every_slice(
    patch_depth: int,
) -> None:
    torch.manual_seed(0)
    upscaling = Upscaling(16, 1e-5)
    flat = nn.Sequential(nn.ConvTranspose2d(16, 4, 2, 2), nn.ConvTranspose2d(4, 2, 2, 2))
    for layer, layer_2d in zip((upscaling[0], upscaling[3]), flat, strict=True):
        assert isinstance(layer, DepthAwareUpsample)
        assert isinstance(layer_2d, nn.ConvTranspose2d)
        layer.weight.data = layer_2d.weight.data.unsqueeze(2).repeat(1, 1, 2, 1, 1)
        layer.bias = layer_2d.bias
    features = torch.randn(1, 16, 4, 5)
    quarter = nn.functional.layer_norm(flat[0](features).movedim(1, -1), (4,)).movedim(-1, 1)
    expected = nn.functional.gelu(flat[1](nn.functional.gelu(quarter)))

    upscaled = upscaling(features.unsqueeze(2).repeat(1, 1, 3, 1, 1), patch_depth)

    for slice_ in upscaled.unbind(2):
        torch.testing.assert_close(slice_, expected, atol=1e-5, rtol=1e-5)


def test_an_exhausted_depth_gets_the_mean_of_the_slices_it_stands_for() -> None:
    torch.manual_seed(0)
    layer = DepthAwareUpsample(4, 3, level=0)
    features = torch.randn(2, 4, 5, 6, 7)

    flat = layer(features, patch_depth=1)

    pairs = layer(features, patch_depth=2).unflatten(2, (5, 2))
    torch.testing.assert_close(flat, pairs.mean(3))


def test_the_second_layer_needs_twice_the_depth_of_the_first() -> None:
    layer = DepthAwareUpsample(4, 3, level=1)

    depths = [layer(torch.randn(1, 4, 2, 2, 2), of).shape[2] for of in (1, 2, 4, 16)]

    assert depths == [2, 2, 4, 4]
