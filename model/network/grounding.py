"""The localizer within the whole model: which network predicts masks and boxes, and its loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.data.inputs import ModelImage, PhraseTarget
from model.network.localization.localizer import Localization, Localizer
from model.network.localization.losses import LocalizationLoss, localization_loss


class Branch(NamedTuple):
    """A localization network and what it predicts.

    The shared network predicts masks and boxes, each of the two released networks one of them.
    """

    network: Localizer
    masks: bool
    boxes: bool

    def losses(
        self,
        images: Sequence[ModelImage],
        prompts: Sequence[Tensor],
        targets: Sequence[Sequence[PhraseTarget]],
    ) -> list[LocalizationLoss]:
        """Localize the phrases with an annotation for this network; one loss for each sample."""
        chosen = [
            [i for i, target in enumerate(sample) if self._trains_on(target)] for sample in targets
        ]
        annotated = [
            [sample[i] for i in indices] for sample, indices in zip(targets, chosen, strict=True)
        ]
        predicted = self.network(
            images,
            [states[indices] for states, indices in zip(prompts, chosen, strict=True)],
            masks=[
                self.masks and any(target.mask is not None for target in sample)
                for sample in annotated
            ],
            boxes=[
                self.boxes and any(target.boxes is not None for target in sample)
                for sample in annotated
            ],
        )
        return [localization_loss(*pair) for pair in zip(predicted, annotated, strict=True)]

    def _trains_on(self, target: PhraseTarget) -> bool:
        return (self.masks and target.mask is not None) or (self.boxes and target.boxes is not None)


def grounding_loss(
    branches: Sequence[Branch],
    images: Sequence[ModelImage],
    prompts: Sequence[Tensor],
    targets: Sequence[Sequence[PhraseTarget]],
) -> LocalizationLoss:
    """Compute the localization loss of a batch.

    Args:
        branches: the networks.
        images: one for each sample.
        prompts: (phrases, hidden) of each sample.
        targets: one for each phrase of a sample; empty for a sample without annotations.

    Returns:
        The means over all samples; a sample without annotations counts as 0.

    Raises:
        ValueError: if the numbers of images, prompts and targets differ.
    """
    if not len(images) == len(prompts) == len(targets):
        raise ValueError(
            f"{len(images)} images and {len(targets)} lists of targets for {len(prompts)} samples:"
            " each sample has one of each"
        )
    for number, (sample, phrases) in enumerate(zip(targets, prompts, strict=True)):
        if sample and len(sample) != len(phrases):
            raise ValueError(
                f"sample {number} has {len(sample)} targets for {len(phrases)} phrases"
            )
    losses = [loss for branch in branches for loss in branch.losses(images, prompts, targets)]
    # A branch without annotated phrases returns zeros on the CPU: the sum starts on the device.
    zero = prompts[0].new_zeros(())
    parts = {
        field.name: sum((getattr(loss, field.name) for loss in losses), start=zero)
        for field in fields(LocalizationLoss)
    }
    return LocalizationLoss(**{name: part / len(targets) for name, part in parts.items()})


def localize(
    branches: Sequence[Branch],
    images: Sequence[ModelImage],
    prompts: Sequence[Tensor],
    *,
    masks: bool,
    boxes: bool,
) -> list[Localization]:
    """Localize all phrases of each sample, with the networks that predict what is requested.

    Raises:
        ValueError: if the number of images is not that of the samples.
    """
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images for {len(prompts)} samples: each sample has one")
    if not (masks or boxes):
        return [Localization()] * len(images)
    predicted = [
        network(images, prompts, masks=masks and for_masks, boxes=boxes and for_boxes)
        for network, for_masks, for_boxes in branches
        if (masks and for_masks) or (boxes and for_boxes)
    ]
    # Of two networks the first predicts masks and the last boxes; a shared one is first and last.
    return [
        Localization(parts[0].mask_logits, parts[-1].boxes, parts[-1].presence_logits)
        for parts in zip(*predicted, strict=True)
    ]


def zero_from_parameters(modules: Iterable[nn.Module]) -> Tensor:
    """Return 0, computed from every trainable parameter, so that each of them has a gradient.

    A batch may have no mask, no box or no phrase at all. Unused parameters would have no gradient,
    and DistributedDataParallel would wait for them.
    """
    trainable = [
        parameter
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    return sum((parameter.sum() * 0 for parameter in trainable), start=torch.zeros(()))
