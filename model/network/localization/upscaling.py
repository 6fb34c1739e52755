"""Up-sampling from the patch grid towards voxels, with a depth that depends on the patch.

A patch that covers p voxels of depth is up-sampled to at most p slices: a layer doubles the depth
only where the result has no more slices than voxels. Otherwise the kernel is averaged over depth,
so that the same weights up-sample a radiograph in 2D.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv_transpose3d

from model.network.resampling import mean_pool_depth


class DepthAwareUpsample(nn.ConvTranspose3d):
    """Transposed convolution that doubles height, width and, for thick patches, depth.

    level: number of up-sampling layers before this one.
    """

    def __init__(self, in_channels: int, out_channels: int, level: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2)
        self.smallest_patch_depth = 2 ** (level + 1)

    def forward(self, features: Tensor, patch_depth: int) -> Tensor:  # type: ignore[override]
        """Up-sample (P, channels, d, h, w); a patch covers `patch_depth` voxels of depth."""
        depth = 2 if patch_depth >= self.smallest_patch_depth else 1
        kernel = mean_pool_depth(self.weight, depth)
        return conv_transpose3d(features, kernel, self.bias, stride=(depth, 2, 2))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (P, channels, d, h, w)."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalize over the channels at each position."""
        return super().forward(features.movedim(1, -1)).movedim(-1, 1)


class Upscaling(nn.Sequential):
    """Two up-sampling layers, to a quarter and an eighth of the channels."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__(
            DepthAwareUpsample(hidden_size, hidden_size // 4, level=0),
            ChannelNorm(hidden_size // 4, eps),
            nn.GELU(),
            DepthAwareUpsample(hidden_size // 4, hidden_size // 8, level=1),
            nn.GELU(),
        )

    def forward(self, features: Tensor, patch_depth: int) -> Tensor:  # type: ignore[override]
        """Up-sample (P, hidden, d, h, w) to (P, hidden / 8, d', 4 h, 4 w).

        d' is d, 2 d or 4 d for patches that cover 1, 2 or at least 4 voxels of depth.
        """
        first, norm, activation, second, _ = self
        return activation(second(activation(norm(first(features, patch_depth))), patch_depth))
