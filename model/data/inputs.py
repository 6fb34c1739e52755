"""Inputs of the model: images, texts and the targets of their phrases, packed without padding.

Images are (channel, depth, height, width); a radiograph has one slice. Boxes and masks are in the
frame of the prepared (resized and padded) image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.data.token_grid import TokenGrid

IGNORED = -100
"""The label of a position without a loss, PyTorch's default."""


@dataclass(frozen=True)
class ModelImage:
    """One prepared image.

    pixels: float32 (3, depth, height, width), 0 to 1, padded with 0 to `grid.size`; each part of
        the model normalizes them as in its training.
    grid: how the image is divided into patches and tokens.
    """

    pixels: Tensor
    grid: TokenGrid


@dataclass(frozen=True)
class PhraseTarget:
    """The annotation of one phrase in the prepared image; both None if it has none.

    mask: bool (depth, height, width) of `grid.size`; all False if the target is known to be absent.
    boxes: float32 (instances, 6), center and size as (z, y, x, depth, height, width) in shares of
        `grid.size`; (0, 6) if the target is known to be absent.
    """

    mask: Tensor | None = None
    boxes: Tensor | None = None


@dataclass(frozen=True)
class TokenSequence:
    """One sample's text with its image positions; every tensor is (length,).

    input_ids: token ids; image positions hold the padding id.
    token_types: 1 at image positions (boi, image tokens, eoi), else 0.
    position_ids: see `model.data.sequence`.
    labels: the id that each position predicts (already shifted), or IGNORED.
    weights: float32, the weight of each position in the loss.
    num_phrases: complete `<p>` … `</p>` pairs in the sequence.
    num_cut: further pairs that the length limit cut off.
    """

    input_ids: Tensor
    token_types: Tensor
    position_ids: Tensor
    labels: Tensor
    weights: Tensor
    num_phrases: int
    num_cut: int = 0


@dataclass(frozen=True)
class Sample:
    """One image, its text, and one target for each complete phrase, in reading order."""

    image: ModelImage
    text: TokenSequence
    targets: tuple[PhraseTarget, ...] = ()

    @classmethod
    def of(cls, image: ModelImage, text: TokenSequence, targets: Sequence[PhraseTarget]) -> Sample:
        """Make a sample from the targets of all phrases, including those that were cut off.

        Raises:
            ValueError: if the number of targets is not that of the phrases of the uncut text.
        """
        phrases = text.num_phrases + text.num_cut
        if len(targets) != phrases:
            raise ValueError(f"{len(targets)} targets for the {phrases} phrases of the text")
        return cls(image, text, tuple(targets[: text.num_phrases]))


@dataclass(frozen=True)
class Batch:
    """Packed (concatenated) samples: the arguments of `VividMedForCausalLM.forward`.

    Text tensors are (1, tokens of all samples); lengths: tokens of each sample.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    label_weights: Tensor
    lengths: tuple[int, ...]
    images: tuple[ModelImage, ...]
    targets: tuple[tuple[PhraseTarget, ...], ...] = field(default=())


def pack(samples: Sequence[Sample]) -> Batch:
    """Pack samples of any image size and text length into one batch.

    Raises:
        ValueError: if the targets of a sample differ in number from its complete phrases.
    """
    for number, sample in enumerate(samples):
        if sample.targets and len(sample.targets) != sample.text.num_phrases:
            raise ValueError(
                f"sample {number} has {len(sample.targets)} targets for"
                f" {sample.text.num_phrases} phrases"
            )
    texts = [sample.text for sample in samples]

    def row(tensors: list[Tensor]) -> Tensor:
        # One row, because transformers expects a batch dimension.
        return torch.cat(tensors).unsqueeze(0)

    return Batch(
        input_ids=row([text.input_ids for text in texts]),
        token_type_ids=row([text.token_types for text in texts]),
        position_ids=row([text.position_ids for text in texts]),
        labels=row([text.labels for text in texts]),
        label_weights=row([text.weights for text in texts]),
        lengths=tuple(len(text.input_ids) for text in texts),
        images=tuple(sample.image for sample in samples),
        targets=tuple(sample.targets for sample in samples),
    )
