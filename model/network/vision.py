"""The vision transformer: EVA2-CLIP over packed images of any depth and size, with its adapter.

CogVLM's image encoder (section 3.1 of the paper), made three-dimensional: patches whose depth
follows the image, positions resampled to its grid, max-pooling over the grid before the adapter.
The images of a batch are concatenated in one sequence (packed); everything but attention runs on
all of them at once. Post-norm inside the residual branch: x + norm(f(x)).

Module names are those of CogVLM's checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, max_pool3d, silu
from transformers.modeling_layers import GradientCheckpointingLayer

from model.config import VisionConfig, VividMedConfig
from model.data.inputs import ModelImage
from model.data.token_grid import TokenGrid
from model.network.attention import packed_attention
from model.network.patches import INITIAL_STD, GridPositions, LearnedRow, PatchConv

# Channel means and standard deviations of CLIP's training images, in pixels of 0 to 1.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class PatchEmbedding(nn.Module):
    """Embeds the patches of each image with their positions, after a class token."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        depth, height, width = config.position_grid
        self.proj = PatchConv(len(CLIP_MEAN), config.hidden_size, config.patch_size)
        self.cls_embedding = LearnedRow(config.hidden_size)
        self.cls_pos_embed = LearnedRow(config.hidden_size)
        self.position_embedding = GridPositions(config.hidden_size, (depth, height, width))

    def forward(self, images: Sequence[ModelImage]) -> Tensor:
        """Return (tokens of all images, hidden): for each image a class token, then its patches."""
        class_token = self.cls_embedding.weight + self.cls_pos_embed.weight
        grids = {image.grid.patches for image in images}
        positions = {patches: self.position_embedding(patches) for patches in grids}
        packed: list[Tensor] = []
        for image in images:
            pixels = _normalize(image.pixels).to(class_token)
            patches = self.proj(pixels, image.grid.patch[0])
            packed += [class_token, patches + positions[image.grid.patches]]
        return torch.cat(packed)


class Attention(nn.Module):
    """Multi-head attention within each image."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """Attend within each image; (tokens, hidden) to the same."""
        query, key, value = (
            self.query_key_value(hidden).unflatten(1, (3, self.num_heads, -1)).unbind(1)
        )
        return self.dense(packed_attention(query, key, value, lengths).flatten(1))


class MLP(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform each token; (tokens, hidden) to the same."""
        return self.fc2(gelu(self.fc1(hidden)))


class TransformerLayer(GradientCheckpointingLayer):
    """A residual block that normalizes the output of its sub-layers, not their input."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """Transform the packed tokens; (tokens, hidden) to the same."""
        hidden = hidden + self.input_layernorm(self.attention(hidden, lengths))
        return hidden + self.post_attention_layernorm(self.mlp(hidden))


class Transformer(nn.Module):
    """The stack of layers, without a final norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(config) for _ in range(config.num_hidden_layers)
        )

    def forward(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """Transform the packed tokens; (tokens, hidden) to the same."""
        for layer in self.layers:
            hidden = layer(hidden, lengths)
        return hidden


class Adapter(nn.Module):
    """From image features to the language model's embeddings: a projection and a SwiGLU."""

    def __init__(self, config: VividMedConfig) -> None:
        super().__init__()
        hidden, intermediate = config.hidden_size, config.intermediate_size
        self.linear_proj = nn.Linear(config.vision.hidden_size, hidden, bias=False)
        self.norm1 = nn.LayerNorm(hidden)
        self.dense_h_to_4h = nn.Linear(hidden, intermediate, bias=False)
        self.gate_proj = nn.Linear(hidden, intermediate, bias=False)
        self.dense_4h_to_h = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (tokens, vision hidden) to (tokens, language hidden)."""
        hidden = gelu(self.norm1(self.linear_proj(features)))
        return self.dense_4h_to_h(silu(self.gate_proj(hidden)) * self.dense_h_to_4h(hidden))


class VisionTower(nn.Module):
    """From images to embeddings for the language model."""

    def __init__(self, config: VividMedConfig) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(config.vision)
        self.transformer = Transformer(config.vision)
        self.linear_proj = Adapter(config)
        # Bare parameters, as in the released code, where LoRA adapters neither train nor save them.
        self.boi = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.eoi = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the markers of the beginning and the end of an image."""
        nn.init.trunc_normal_(self.boi, std=INITIAL_STD)
        nn.init.trunc_normal_(self.eoi, std=INITIAL_STD)

    def forward(self, images: Sequence[ModelImage]) -> list[Tensor]:
        """Embed images of any depth and size.

        Args:
            images: pixels in 0 to 1; they are normalized here with the padding, as in the training
                of the backbone.

        Returns:
            (tokens + 2, language hidden) for each image: boi, the tokens in (depth, height, width)
            order, eoi.
        """
        if not images:
            return []
        grids = [image.grid for image in images]
        lengths = [1 + prod(grid.patches) for grid in grids]  # 1: the class token
        hidden = self.transformer(self.patch_embedding(images), lengths).split(lengths)
        # Without the class token: the language model has only the patches.
        pooled = [_pool(features[1:], grid) for features, grid in zip(hidden, grids, strict=True)]
        tokens = self.linear_proj(torch.cat(pooled)).split([grid.num_tokens for grid in grids])
        return [torch.cat([self.boi[0], of_image, self.eoi[0]]) for of_image in tokens]


def _normalize(pixels: Tensor) -> Tensor:
    mean, std = (
        pixels.new_tensor(channels).view(-1, 1, 1, 1) for channels in (CLIP_MEAN, CLIP_STD)
    )
    return (pixels - mean) / std


def _pool(features: Tensor, grid: TokenGrid) -> Tensor:
    """Max-pool the features of an image: (patches, hidden) to (tokens, hidden)."""
    pooled = max_pool3d(features.unflatten(0, grid.patches).movedim(3, 0), grid.pool)
    return pooled.flatten(1).transpose(0, 1)
