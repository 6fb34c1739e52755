"""What the model is given: images, texts and the targets of their phrases, packed without padding.

Tensors are (channel, depth, height, width); a radiograph is the case of one slice. Boxes and masks
are in the frame of the prepared (resized and padded) image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.data.token_grid import TokenGrid

IGNORED = -100
"""The label of a position that is not learned."""


@dataclass(frozen=True)
class ModelImage:
    """One prepared image.

    pixels: float32 (3, depth, height, width), 0 to 1, padded with 0 to `grid.size`; each part of
        the model normalises as it was trained.
    grid: how it is cut into tokens.
    """

    pixels: Tensor
    grid: TokenGrid


@dataclass(frozen=True)
class PhraseTarget:
    """What one phrase points at in the prepared image; both None: nobody annotated it.

    mask: bool (depth, height, width) of `grid.size`; all False when the target is known absent.
    boxes: float32 (instances, 6), centre and size as (z, y, x, depth, height, width) in shares of
        `grid.size`; (0, 6) when the target is known absent.
    """

    mask: Tensor | None = None
    boxes: Tensor | None = None


@dataclass(frozen=True)
class TokenSequence:
    """One sample's text with its image's places; every tensor is (length,).

    input_ids: token ids; image places hold the padding id.
    token_types: 1 at the image's places (boi, tokens, eoi), else 0.
    position_ids: see `model.data.sequence`.
    labels: the id that each position shall predict, or IGNORED: already shifted.
    weights: float32, the weight of each position in the loss.
    num_phrases: `<p>` … `</p>` pairs that the sequence holds whole.
    num_cut: pairs behind them that the length limit cut off.
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
    """One image, its text, and one target for each whole phrase of the text, in reading order."""

    image: ModelImage
    text: TokenSequence
    targets: tuple[PhraseTarget, ...] = ()

    @classmethod
    def of(cls, image: ModelImage, text: TokenSequence, targets: Sequence[PhraseTarget]) -> Sample:
        """Make a sample from the targets of all phrases, those that were cut off among them.

        Raises:
            ValueError: if there is not one target for each phrase of the text before it was cut.
        """
        written = text.num_phrases + text.num_cut
        if len(targets) != written:
            raise ValueError(f"{len(targets)} targets for the {written} phrases of the text")
        return cls(image, text, tuple(targets[: text.num_phrases]))


@dataclass(frozen=True)
class Batch:
    """Samples packed one behind the other: the arguments of `VividMedForCausalLM.forward`.

    Text tensors are (1, tokens of all samples); lengths are the tokens of each.
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
        ValueError: if a sample has another number of targets than whole phrases.
    """
    for number, sample in enumerate(samples):
        if sample.targets and len(sample.targets) != sample.text.num_phrases:
            raise ValueError(
                f"sample {number} has {len(sample.targets)} targets for"
                f" {sample.text.num_phrases} phrases"
            )
    texts = [sample.text for sample in samples]

    def row(tensors: list[Tensor]) -> Tensor:
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
