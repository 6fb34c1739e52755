"""From an image's features and the prompts of its phrases to masks and instance embeddings.

The decoder of "Segment Anything" (ICCV 2023), with mask tokens of another meaning: the first stands
for everything that the phrase names, each of the others for one instance of it. The similarity to
the prompt is SegVol's (NeurIPS 2024).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from model.config import LocalizerConfig
from model.data.token_grid import TokenGrid
from model.network.localization.two_way import TwoWayTransformer
from model.network.localization.upscaling import Upscaling


class MaskDecoder(nn.Module):
    """Tokens [iou, semantic mask, K instances, prompt], one two-way pass a phrase."""

    def __init__(self, config: LocalizerConfig, num_instances: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.iou_token = nn.Embedding(1, hidden)
        self.mask_tokens = nn.Embedding(1 + num_instances, hidden)
        self.transformer = TwoWayTransformer(config)
        self.output_upscaling = Upscaling(hidden, config.layer_norm_eps)
        self.output_hypernetworks_mlps = nn.ModuleList([HyperNetwork(hidden, hidden // 8)])
        self.txt_align_upscaled_embedding = nn.Linear(hidden, hidden // 8)

    def forward(
        self, image: Tensor, positions: Tensor, prompts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the transformer for P prompts on one image.

        Args:
            image: (patches, hidden), the dense prompt added.
            positions: (patches, hidden), the positional code of the patches.
            prompts: (P, hidden).

        Returns:
            the semantic token (P, hidden), the instance tokens (P, K, hidden) and the image as each
            phrase sees it (P, patches, hidden).
        """
        learned = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([learned.expand(len(prompts), -1, -1), prompts.unsqueeze(1)], dim=1)
        tokens, seen = self.transformer(tokens, image.unsqueeze(0), positions)
        return tokens[:, 1], tokens[:, 2:-1], seen

    def masks(self, semantic: Tensor, seen: Tensor, prompts: Tensor, grid: TokenGrid) -> Tensor:
        """Turn the semantic token into mask logits (P, depth, height, width) of `grid.size`.

        A voxel's logit is the product of its up-sampled feature with the token's, plus its
        similarity to the prompt.
        """
        features = seen.transpose(1, 2).unflatten(2, grid.patches)
        features = self.output_upscaling(features, grid.patch[0])
        weights = self.output_hypernetworks_mlps[0](semantic)
        weights = weights + self.txt_align_upscaled_embedding(prompts)
        logits = torch.einsum("pc,pc...->p...", weights, features)
        return interpolate(
            logits.unsqueeze(0), grid.size, mode="trilinear", align_corners=False
        ).squeeze(0)


class HyperNetwork(nn.Module):
    """Three layers that turn a token into the weights of a voxel classifier."""

    def __init__(self, hidden_size: int, channels: int) -> None:
        super().__init__()
        sizes = [hidden_size, hidden_size, hidden_size, channels]
        self.layers = nn.ModuleList(nn.Linear(wide, narrow) for wide, narrow in pairwise(sizes))

    def forward(self, token: Tensor) -> Tensor:
        """Map (P, hidden) to (P, channels)."""
        first, second, last = self.layers
        return last(relu(second(relu(first(token)))))
