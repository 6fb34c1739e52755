"""The localiser within the whole model: which network answers for what, and what it learns."""

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
    """A network and what it is there for: a shared one for both, the released two for one each."""

    network: Localizer
    masks: bool
    boxes: bool

    def losses(
        self,
        images: Sequence[ModelImage],
        prompts: Sequence[Tensor],
        targets: Sequence[Sequence[PhraseTarget]],
    ) -> list[LocalizationLoss]:
        """Localise the phrases with an annotation of its kind; one loss for each sample."""
        chosen = [[i for i, of in enumerate(sample) if self._answers(of)] for sample in targets]
        wanted = [[sample[i] for i in kept] for sample, kept in zip(targets, chosen, strict=True)]
        found = self.network(
            images,
            [of[kept] for of, kept in zip(prompts, chosen, strict=True)],
            masks=[self.masks and any(of.mask is not None for of in sample) for sample in wanted],
            boxes=[self.boxes and any(of.boxes is not None for of in sample) for sample in wanted],
        )
        return [localization_loss(*pair) for pair in zip(found, wanted, strict=True)]

    def _answers(self, target: PhraseTarget) -> bool:
        return (self.masks and target.mask is not None) or (self.boxes and target.boxes is not None)


def grounding_loss(
    branches: Sequence[Branch],
    images: Sequence[ModelImage],
    prompts: Sequence[Tensor],
    targets: Sequence[Sequence[PhraseTarget]],
) -> LocalizationLoss:
    """Score the localisation of a batch.

    Args:
        branches: the networks.
        images: one for each sample.
        prompts: (phrases, hidden) of each sample.
        targets: of each sample's phrases, or none for a sample that has nothing annotated.

    Returns:
        The means over all samples; one without annotations counts, with 0.

    Raises:
        ValueError: if images, prompts and targets do not fit each other in number.
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
    losses = [loss for of in branches for loss in of.losses(images, prompts, targets)]
    # The parts of a network that had nothing to do are zeros that know no device.
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
    """Localise all phrases of each sample, with the networks that are there for what is asked.

    Raises:
        ValueError: if there is not one image for each sample.
    """
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images for {len(prompts)} samples: each sample has one")
    if not (masks or boxes):
        return [Localization()] * len(images)
    found = [
        network(images, prompts, masks=masks and for_masks, boxes=boxes and for_boxes)
        for network, for_masks, for_boxes in branches
        if (masks and for_masks) or (boxes and for_boxes)
    ]
    return [
        Localization(parts[0].mask_logits, parts[-1].boxes, parts[-1].presence_logits)
        for parts in zip(*found, strict=True)
    ]


def nothing_of(modules: Iterable[nn.Module]) -> Tensor:
    """Zero, computed from every trained parameter.

    A batch may have no mask, no box, or no phrase at all. Parameters that took no part in it would
    have no gradient then, and DistributedDataParallel would wait for those on the other processes.
    """
    parameters = [of for module in modules for of in module.parameters() if of.requires_grad]
    return sum((of.sum() * 0 for of in parameters), start=torch.zeros(()))
