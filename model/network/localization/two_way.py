"""The decoder's two-way transformer: tokens attend to the image, and the image to the tokens.

"Segment Anything", Kirillov et al., ICCV 2023, appendix A; parameter names are the released ones.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_layers import GradientCheckpointingLayer

from model.config import LocalizerConfig


class TwoWayTransformer(nn.Module):
    """Updates tokens and image features alternately."""

    def __init__(self, config: LocalizerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(config, first=number == 0) for number in range(config.decoder_layers)
        )
        self.final_attn_token_to_image = Attention(config, config.decoder_downsample)
        self.norm_final_attn = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, tokens: Tensor, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Let P sets of tokens and one image attend to each other.

        Args:
            tokens: (P, tokens, hidden); the input tokens are also the positional encoding.
            image: (1, patches, hidden).
            positions: (patches, hidden), the positional encoding of the patches.

        Returns:
            the tokens (P, tokens, hidden) and the image features of each set (P, patches, hidden).
        """
        # As in SAM, positional encodings are added to queries and keys, never to values.
        codes = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, codes, positions)
        attended = self.final_attn_token_to_image(tokens + codes, image + positions, image)
        return self.norm_final_attn(tokens + attended), image


class TwoWayBlock(GradientCheckpointingLayer):
    """Tokens attend to each other, then to the image; the image then attends to the tokens."""

    def __init__(self, config: LocalizerConfig, *, first: bool) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.first = first
        self.self_attn = Attention(config)
        self.norm1 = nn.LayerNorm(hidden, eps)
        self.cross_attn_token_to_image = Attention(config, config.decoder_downsample)
        self.norm2 = nn.LayerNorm(hidden, eps)
        self.mlp = nn.Sequential(
            OrderedDict(
                lin1=nn.Linear(hidden, config.decoder_intermediate_size),
                act=nn.ReLU(),
                lin2=nn.Linear(config.decoder_intermediate_size, hidden),
            )
        )
        self.norm3 = nn.LayerNorm(hidden, eps)
        self.norm4 = nn.LayerNorm(hidden, eps)
        self.cross_attn_image_to_token = Attention(config, config.decoder_downsample)

    def forward(
        self, tokens: Tensor, image: Tensor, codes: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `TwoWayTransformer.forward`; codes: (P, tokens, hidden), the input tokens."""
        if self.first:
            # In the first block the tokens equal their codes: SAM neither adds them nor a residual.
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            coded = tokens + codes
            tokens = self.norm1(tokens + self.self_attn(coded, coded, tokens))
        keys = image + positions
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + codes, keys, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(keys, tokens + codes, tokens))
        return tokens, image


class Attention(nn.Module):
    """Multi-head attention with an inner width of hidden_size / downsample."""

    def __init__(self, config: LocalizerConfig, downsample: int = 1) -> None:
        super().__init__()
        inner = config.hidden_size // downsample
        self.num_heads = config.decoder_heads
        self.q_proj = nn.Linear(config.hidden_size, inner)
        self.k_proj = nn.Linear(config.hidden_size, inner)
        self.v_proj = nn.Linear(config.hidden_size, inner)
        self.out_proj = nn.Linear(inner, config.hidden_size)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend; each input is (P or 1, length, hidden), and a shared one is projected once."""
        # The image is shared by all phrases until the first layer has updated it.
        batch = max(len(query), len(key))
        q, k, v = (
            self._heads(project(states)).expand(batch, -1, -1, -1)
            for project, states in (
                (self.q_proj, query),
                (self.k_proj, key),
                (self.v_proj, value),
            )
        )
        attended = scaled_dot_product_attention(q, k, v)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
