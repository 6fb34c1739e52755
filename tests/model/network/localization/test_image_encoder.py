import torch
from transformers.models.sam.configuration_sam import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionLayer

from model.config import LocalizerConfig
from model.data.inputs import ModelImage
from model.data.token_grid import TokenGrid
from model.network.localization.image_encoder import ImageEncoder

CONFIG = LocalizerConfig(
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_heads=4,
    patch_size=4,
    position_grid=(2, 4, 4),
)


def image(size: tuple[int, int, int], patch_depth: int) -> ModelImage:
    return ModelImage(torch.rand(3, *size), TokenGrid(size, size, (patch_depth, 4, 4), (1, 1, 1)))


@torch.no_grad()
def test_agrees_with_the_layers_of_sam_without_windows_and_relative_positions() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(CONFIG)
    volume = image((8, 12, 8), patch_depth=4)
    # SAM's layers take a 2D grid of patches; without relative positions any shape will do.
    tokens = encoder.patch_embedding(volume).reshape(1, 4, 3, 24)
    sam = SamVisionConfig(
        hidden_size=24,
        mlp_dim=40,
        num_attention_heads=4,
        qkv_bias=False,
        use_rel_pos=False,
        attn_implementation="eager",
        layer_norm_eps=CONFIG.layer_norm_eps,
    )
    for ours in encoder.blocks:
        layer = SamVisionLayer(sam, window_size=0)
        layer.load_state_dict(
            {
                name.replace("norm", "layer_norm").replace("linear", "lin").replace("out_", ""): of
                for name, of in ours.state_dict().items()
            }
        )
        tokens = layer(tokens)
    expected = encoder.norm(tokens).reshape(12, 24)

    [features] = encoder([volume])

    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_an_image_is_encoded_the_same_in_any_company() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(CONFIG)
    images = [image((1, 16, 8), 1), image((4, 8, 8), 2), image((1, 16, 8), 1)]

    together = encoder(images)
    reversed_ = encoder(images[::-1])

    for number, of in enumerate(images):
        [alone] = encoder([of])
        torch.testing.assert_close(together[number], alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(reversed_[2 - number], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pixels_are_taken_as_they_are() -> None:
    """Black is 0 and not below it: the localizer was not trained on normalized pixels."""
    torch.manual_seed(0)
    embedding = ImageEncoder(CONFIG).patch_embedding
    size = (4, 8, 8)
    grid = TokenGrid(size, size, (2, 4, 4), (1, 1, 1))

    black = embedding(ModelImage(torch.zeros(3, *size), grid))
    white = embedding(ModelImage(torch.ones(3, *size), grid))

    unseen = embedding.position_embeddings(grid.patches) + embedding.proj.bias
    torch.testing.assert_close(black, unseen)
    of_kernel = embedding.proj.weight.sum((1, 2, 3, 4)).expand(len(white), -1)
    torch.testing.assert_close(white - black, of_kernel, atol=1e-5, rtol=1e-4)


def test_no_images_give_no_features() -> None:
    assert ImageEncoder(CONFIG)([]) == ()
