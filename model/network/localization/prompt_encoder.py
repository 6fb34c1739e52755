"""The prompt encoder: positional encoding of the patches and the embedding of "no mask prompt"."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FourierPositions(nn.Module):
    """Positional encoding by random Fourier features (Tancik et al., NeurIPS 2020), as in SAM."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer(
            "positional_encoding_gaussian_matrix", torch.empty(3, hidden_size // 2)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the frequencies at random."""
        nn.init.normal_(self.positional_encoding_gaussian_matrix)

    def forward(self, grid: tuple[int, int, int]) -> Tensor:
        """Return (patches, hidden) for the centers of a (depth, height, width) grid."""
        frequencies = self.positional_encoding_gaussian_matrix
        z, y, x = torch.meshgrid([_centers(steps, frequencies) for steps in grid], indexing="ij")
        # The rows of the matrix are in the order y, z, x, in which SegVol's weights were trained:
        # its code names the axes h, w, d, but depth is the first.
        phases = 2 * math.pi * torch.stack([y, z, x], dim=-1).flatten(0, 2) @ frequencies
        return torch.cat([phases.sin(), phases.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """The dense prompt; the prompt vector of a phrase needs no encoding."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.pe_layer = FourierPositions(hidden_size)
        self.no_mask_embed = nn.Embedding(1, hidden_size)

    def forward(self, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Return the dense prompt (1, hidden) and the positional encoding (patches, hidden)."""
        return self.no_mask_embed.weight, self.pe_layer(grid)


def _centers(steps: int, like: Tensor) -> Tensor:
    """Centers of `steps` equal parts of [-1, 1]."""
    indices = torch.arange(steps, device=like.device, dtype=like.dtype)
    return 2 * (indices + 0.5) / steps - 1
