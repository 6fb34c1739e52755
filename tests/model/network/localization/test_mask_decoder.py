"""Agreement with SAM, whose 2D decoder ours is on an image of one slice."""

import re

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import SamConfig, SamModel

from model.config import LocalizerConfig
from model.data.token_grid import TokenGrid
from model.network.localization.mask_decoder import MaskDecoder
from model.network.localization.prompt_encoder import PromptEncoder

HIDDEN = 32
EDGE = 6
"""Patches along height and width."""

CONFIG = LocalizerConfig(
    hidden_size=HIDDEN,
    decoder_heads=4,
    decoder_intermediate_size=48,
    num_instances=3,
    layer_norm_eps=1e-6,
)
RENAMED = [
    (r"layer_norm_final_attn", "norm_final_attn"),
    (r"transformer\.layers\.(\d)\.layer_norm(\d)", r"transformer.layers.\1.norm\2"),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"(mlps\.\d)\.layers\.0", r"\1.layers.1"),
    (r"(mlps\.\d)\.proj_in", r"\1.layers.0"),
    (r"(mlps\.\d)\.proj_out", r"\1.layers.2"),
]


def tiny_sam() -> SamModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": HIDDEN, "image_size": 16 * EDGE, "patch_size": 16}
    sam = SamModel(
        SamConfig(
            vision_config={
                **sizes,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "output_channels": HIDDEN,
                "num_pos_feats": HIDDEN // 2,
                "global_attn_indexes": [0],
            },
            prompt_encoder_config={**sizes, "image_embedding_size": EDGE},
            mask_decoder_config={
                "hidden_size": HIDDEN,
                "mlp_dim": 48,
                "num_attention_heads": 4,
                "iou_head_hidden_dim": HIDDEN,
            },
        )
    ).eval()
    for parameter in sam.parameters():
        # Untrained biases are zero and norms one: then nobody would miss them.
        torch.nn.init.normal_(parameter, std=0.5)
    for module in sam.mask_decoder.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = CONFIG.layer_norm_eps
    return sam


def decoder_like(sam: SamModel) -> MaskDecoder:
    decoder = MaskDecoder(CONFIG, num_instances=3)
    weights: dict[str, Tensor] = {}
    for name, value in sam.mask_decoder.state_dict().items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        is_kernel = name in ("output_upscaling.0.weight", "output_upscaling.3.weight")
        weights[name] = value.unsqueeze(2).repeat(1, 1, 2, 1, 1) if is_kernel else value
    missing, unexpected = decoder.load_state_dict(weights, strict=False)
    assert {key.split(".")[0] for key in missing} == {"txt_align_upscaled_embedding"}
    assert all(re.match(r"iou_prediction_head|.*mlps\.[123]", key) for key in unexpected)
    for parameter in decoder.txt_align_upscaled_embedding.parameters():
        torch.nn.init.zeros_(parameter)
    return decoder


def prompt_encoder_like(sam: SamModel) -> PromptEncoder:
    encoder = PromptEncoder(HIDDEN)
    x, y = sam.shared_image_embedding.positional_embedding
    # One slice lies at the middle of the depth, where every frequency gives nothing.
    any_frequency = torch.randn(HIDDEN // 2)
    encoder.load_state_dict(
        {
            "pe_layer.positional_encoding_gaussian_matrix": torch.stack([y, any_frequency, x]),
            "no_mask_embed.weight": sam.prompt_encoder.no_mask_embed.weight,
        }
    )
    return encoder


@torch.no_grad()
def test_masks_and_tokens_agree_with_sam() -> None:
    sam = tiny_sam()
    tokens: list[Tensor] = []
    sam.mask_decoder.transformer.register_forward_hook(lambda *call: tokens.append(call[-1][0][0]))
    decoder, prompt_encoder = decoder_like(sam), prompt_encoder_like(sam)
    image, prompts = torch.randn(1, HIDDEN, EDGE, EDGE), torch.randn(5, HIDDEN)
    _, dense = sam.prompt_encoder(None, None, None, None)
    expected, _ = sam.mask_decoder(
        image_embeddings=image,
        image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=prompts.reshape(1, 5, 1, HIDDEN),
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    size = (1, 16 * EDGE, 16 * EDGE)
    grid = TokenGrid(content=size, size=size, patch=(1, 16, 16), pool=(1, 1, 1))

    no_mask, positions = prompt_encoder(grid.patches)
    features = image.flatten(2).squeeze(0).transpose(0, 1) + no_mask
    semantic, instances, seen = decoder(features, positions, prompts)
    masks = decoder.masks(semantic, seen, prompts, grid)

    # SAM's tokens are iou, four masks, prompt.
    torch.testing.assert_close(semantic, tokens[0][:, 1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(instances, tokens[0][:, 2:5], atol=1e-4, rtol=1e-4)
    expected = interpolate(expected[:, :, 0], size[1:], mode="bilinear", align_corners=False)
    assert expected.std() > 0.5
    torch.testing.assert_close(masks[:, 0], expected[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_positions_agree_with_sam() -> None:
    sam = tiny_sam()
    expected = sam.get_image_wide_positional_embeddings()[0]

    _, positions = prompt_encoder_like(sam)((1, EDGE, EDGE))

    torch.testing.assert_close(positions.T.unflatten(1, (EDGE, EDGE)), expected, atol=1e-5, rtol=0)


def test_every_axis_has_its_own_row_of_frequencies() -> None:
    encoder = PromptEncoder(6)
    frequencies = torch.eye(3) / 4
    encoder.pe_layer.positional_encoding_gaussian_matrix.copy_(frequencies)

    _, positions = encoder((2, 3, 4))

    sines = positions[:, :3].unflatten(0, (2, 3, 4))
    assert torch.allclose(sines[..., 0], sines[:1, :, :1, 0].expand(2, 3, 4), atol=1e-5)  # y
    assert torch.allclose(sines[..., 1], sines[:, :1, :1, 1].expand(2, 3, 4), atol=1e-5)  # z
    assert torch.allclose(sines[..., 2], sines[:1, :1, :, 2].expand(2, 3, 4), atol=1e-5)  # x
    assert sines.flatten(0, 2).std(0).min() > 0.5


@torch.no_grad()
def test_the_similarity_to_the_prompt_is_added_to_the_token_s_logits() -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder(CONFIG, num_instances=3)
    size = (2, 32, 32)
    grid = TokenGrid(content=size, size=size, patch=(1, 16, 16), pool=(1, 1, 1))
    semantic, prompts = torch.randn(2, 3, HIDDEN)
    seen = torch.randn(3, 8, HIDDEN)
    both = decoder.masks(semantic, seen, prompts, grid)

    last = decoder.get_submodule("output_hypernetworks_mlps.0.layers.2")
    for parameter in last.parameters():
        torch.nn.init.zeros_(parameter)
    similarity = decoder.masks(semantic, seen, prompts, grid)

    features = decoder.output_upscaling(seen.transpose(1, 2).unflatten(2, (2, 2, 2)), 1)
    for number, prompt in enumerate(prompts):
        direction = decoder.txt_align_upscaled_embedding(prompt)
        expected = (direction[:, None, None, None] * features[number]).sum(0)
        found = interpolate(expected[None, None], size, mode="trilinear")[0, 0]
        torch.testing.assert_close(similarity[number], found, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both, similarity)
