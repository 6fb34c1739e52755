"""The localizer's vision transformer: a plain pre-norm ViT over packed images of any size.

SegVol's encoder (NeurIPS 2024; MONAI's ViT) with depth-adaptive patches; parameter names are those
of the released weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from model.config import LocalizerConfig
from model.data.inputs import ModelImage
from model.network.attention import packed_attention
from model.network.patches import GridPositions, PatchConv

CHANNELS = 3
"""Input channels: grayscale images are repeated, as for the vision tower."""


class ImageEncoder(nn.Module):
    """Computes the features of every patch; pixels are 0 to 1, not normalized, as in training."""

    def __init__(self, config: LocalizerConfig) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(config)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, images: Sequence[ModelImage]) -> tuple[Tensor, ...]:
        """Return (patches, hidden) for each image, in (depth, height, width) order."""
        if not images:
            return ()
        embedded = [self.patch_embedding(image) for image in images]
        # Everything but attention works on single tokens: one call serves all images.
        lengths = [len(tokens) for tokens in embedded]
        tokens = torch.cat(embedded)
        for block in self.blocks:
            tokens = block(tokens, lengths)
        return self.norm(tokens).split(lengths)


class PatchEmbedding(nn.Module):
    """Embeds the patches of an image, with their positions."""

    def __init__(self, config: LocalizerConfig) -> None:
        super().__init__()
        depth, height, width = config.position_grid
        self.proj = PatchConv(CHANNELS, config.hidden_size, config.patch_size)
        self.position_embeddings = GridPositions(config.hidden_size, (depth, height, width))

    def forward(self, image: ModelImage) -> Tensor:
        """Embed one image: (patches, hidden)."""
        pixels = image.pixels.to(self.proj.weight)
        return self.proj(pixels, image.grid.patch[0]) + self.position_embeddings(image.grid.patches)


class EncoderBlock(GradientCheckpointingLayer):
    """Pre-norm residual block: attention within each image, then an MLP."""

    def __init__(self, config: LocalizerConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.norm1 = nn.LayerNorm(hidden, eps)
        self.attn = SelfAttention(config)
        self.norm2 = nn.LayerNorm(hidden, eps)
        self.mlp = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(hidden, config.intermediate_size),
                act=nn.GELU(),
                linear2=nn.Linear(config.intermediate_size, hidden),
            )
        )

    def forward(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """Map (tokens, hidden) of images with `lengths` tokens to the same."""
        tokens = tokens + self.attn(self.norm1(tokens), lengths)
        return tokens + self.mlp(self.norm2(tokens))


class SelfAttention(nn.Module):
    """Multi-head attention over the patches of each image."""

    def __init__(self, config: LocalizerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """As `EncoderBlock.forward`."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        return self.out_proj(packed_attention(query, key, value, lengths).flatten(1))
