"""How an image of any size is cut into tokens: depth-adaptive patches under a token budget.

The paper, section 3.2 (equation 3), and the released code's rule where the paper gives none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenGrid:
    """The way from an image's voxels to its tokens; all triples are (depth, height, width).

    content: voxels of the image after resizing.
    size: voxels after padding at the far end, a multiple of what one token covers.
    patch: voxels that one patch covers; the depth is a power of two up to the in-plane edge.
    pool: patches that one image token of the language model covers.
    """

    content: tuple[int, int, int]
    size: tuple[int, int, int]
    patch: tuple[int, int, int]
    pool: tuple[int, int, int]

    @property
    def patches(self) -> tuple[int, int, int]:
        """Patches along each axis: the localiser's feature grid."""
        depth, height, width = (n // p for n, p in zip(self.size, self.patch, strict=True))
        return depth, height, width

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Tokens of the language model along each axis."""
        depth, height, width = (n // p for n, p in zip(self.patches, self.pool, strict=True))
        return depth, height, width

    @property
    def num_tokens(self) -> int:
        """Tokens that the image takes in the language model, without boi and eoi."""
        depth, height, width = self.tokens
        return depth * height * width
