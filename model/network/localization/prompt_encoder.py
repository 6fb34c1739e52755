"""What the decoder is told beside the image: where each patch lies, and that no mask is given."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FourierPositions(nn.Module):
    """Random Fourier features of a position (Tancik et al., NeurIPS 2020), as in SAM."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer(
            "positional_encoding_gaussian_matrix", torch.empty(3, hidden_size // 2)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new frequencies."""
        nn.init.normal_(self.positional_encoding_gaussian_matrix)

    def forward(self, grid: tuple[int, int, int]) -> Tensor:
        """Return (patches, hidden) for the centres of a (depth, height, width) grid."""
        frequencies = self.positional_encoding_gaussian_matrix
        z, y, x = torch.meshgrid([_centres(steps, frequencies) for steps in grid], indexing="ij")
        # Rows of the matrix are y, z, x: so SegVol's weights were trained, depth being the first
        # axis of an array whose axes its code calls h, w, d.
        phases = 2 * math.pi * torch.stack([y, z, x], dim=-1).flatten(0, 2) @ frequencies
        return torch.cat([phases.sin(), phases.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """The dense part of the prompt; the phrase's own vector needs no encoding."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.pe_layer = FourierPositions(hidden_size)
        self.no_mask_embed = nn.Embedding(1, hidden_size)

    def forward(self, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Return what every patch is given, (1, hidden), and their code, (patches, hidden)."""
        return self.no_mask_embed.weight, self.pe_layer(grid)


def _centres(steps: int, like: Tensor) -> Tensor:
    """Centres of `steps` equal parts of [-1, 1]."""
    places = torch.arange(steps, device=like.device, dtype=like.dtype)
    return 2 * (places + 0.5) / steps - 1
