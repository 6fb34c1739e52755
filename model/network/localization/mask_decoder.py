"""The mask decoder: from image features and prompts to masks and instance embeddings.

The decoder of "Segment Anything" (ICCV 2023) with a different use of its mask tokens: the first is
for the semantic mask of a phrase, each of the others for one instance. The similarity to the prompt
is SegVol's (NeurIPS 2024).
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
    """Decodes each phrase with the tokens [iou, semantic mask, K instances, prompt]."""

    def __init__(self, config: LocalizerConfig, num_instances: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        # SAM's token for the predicted IoU: it has no output here, but takes part in attention, for
        # which the released weights were trained.
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
            image: (patches, hidden), with the dense prompt added.
            positions: (patches, hidden), the positional encoding of the patches.
            prompts: (P, hidden).

        Returns:
            the semantic token (P, hidden), the instance tokens (P, K, hidden) and the image
            features after attention to each phrase (P, patches, hidden).
        """
        learned = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([learned.expand(len(prompts), -1, -1), prompts.unsqueeze(1)], dim=1)
        tokens, attended = self.transformer(tokens, image.unsqueeze(0), positions)
        # The first token is the iou token, the last one the prompt.
        return tokens[:, 1], tokens[:, 2:-1], attended

    def masks(self, semantic: Tensor, attended: Tensor, prompts: Tensor, grid: TokenGrid) -> Tensor:
        """Compute mask logits (P, depth, height, width) of `grid.size` from the semantic token.

        The logit of a voxel is the dot product of its up-sampled feature with the weights that the
        token predicts, plus its similarity to the prompt.
        """
        features = attended.transpose(1, 2).unflatten(2, grid.patches)
        features = self.output_upscaling(features, grid.patch[0])
        weights = self.output_hypernetworks_mlps[0](semantic)
        weights = weights + self.txt_align_upscaled_embedding(prompts)
        # Each phrase has its own features and its own weights.
        logits = torch.einsum("pc,pc...->p...", weights, features)
        return interpolate(
            logits.unsqueeze(0), grid.size, mode="trilinear", align_corners=False
        ).squeeze(0)


class HyperNetwork(nn.Module):
    """A three-layer MLP from a token to the weights of a linear voxel classifier."""

    def __init__(self, hidden_size: int, channels: int) -> None:
        super().__init__()
        sizes = [hidden_size, hidden_size, hidden_size, channels]
        self.layers = nn.ModuleList(nn.Linear(wide, narrow) for wide, narrow in pairwise(sizes))

    def forward(self, token: Tensor) -> Tensor:
        """Map (P, hidden) to (P, channels)."""
        first, second, last = self.layers
        return last(relu(second(relu(first(token)))))
