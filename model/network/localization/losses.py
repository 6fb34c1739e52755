"""How far a sample's masks and boxes are from what was annotated: the localiser's training loss.

Masks: Dice and focal loss. Instances: Hungarian matching, then L1 and generalised IoU of the
matched boxes and a focal loss of presence. Weights are the paper's where it gives them, else the
released code's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import sigmoid_focal_loss
from torch import Tensor

from model.data.inputs import PhraseTarget
from model.network.localization.boxes import generalized_iou
from model.network.localization.localizer import Localization
from model.network.localization.matching import GIOU_WEIGHT, L1_WEIGHT, PRESENCE_WEIGHT, match

DICE_WEIGHT = 2.0
FOCAL_WEIGHT = 2.0
FOCAL_GAMMA = 2.0
PRESENCE_ALPHA = 0.85
"""Weight of queries that have a box; those without have the rest."""

# Without smoothing an empty target has a constant Dice loss: the focal loss alone teaches it.
_dice = DiceLoss(sigmoid=True, smooth_nr=0.0, smooth_dr=1e-8)


@dataclass(frozen=True)
class LocalizationLoss:
    """The parts of one sample's loss, unweighted scalars; 0 where nothing was annotated."""

    dice: Tensor
    focal: Tensor
    l1: Tensor
    giou: Tensor
    presence: Tensor

    @property
    def total(self) -> Tensor:
        """The weighted sum that is trained."""
        masks = DICE_WEIGHT * self.dice + FOCAL_WEIGHT * self.focal
        boxes = L1_WEIGHT * self.l1 + GIOU_WEIGHT * self.giou
        return masks + boxes + PRESENCE_WEIGHT * self.presence


def localization_loss(
    localization: Localization, targets: Sequence[PhraseTarget]
) -> LocalizationLoss:
    """Score one sample; phrases without annotation, and branches that were not run, are skipped.

    Dice and focal loss are means over the phrases with a mask, the focal loss of presence over all
    queries of the phrases with boxes, L1 and 1 - GIoU over their matched pairs. A mask or boxes
    that are known to be empty are annotations as well. All is computed in single precision.

    Args:
        localization: of P phrases.
        targets: P, in the same order.

    Raises:
        ValueError: if phrases and targets do not fit each other, in number or size.
    """
    outputs = [of for of in (localization.mask_logits, localization.boxes) if of is not None]
    for output in outputs:
        if len(output) != len(targets):
            raise ValueError(f"{len(targets)} targets for {len(output)} localised phrases")
    device = outputs[0].device if outputs else torch.device("cpu")
    with torch.autocast(device.type, enabled=False):
        zero = torch.zeros((), device=device)
        dice, focal = _mask_loss(localization.mask_logits, targets) or (zero, zero)
        l1, giou, presence = _instance_loss(localization, targets) or (zero, zero, zero)
    return LocalizationLoss(dice, focal, l1, giou, presence)


def _mask_loss(
    mask_logits: Tensor | None, targets: Sequence[PhraseTarget]
) -> tuple[Tensor, Tensor] | None:
    annotated = [i for i, target in enumerate(targets) if target.mask is not None]
    if mask_logits is None or not annotated:
        return None
    logits = mask_logits[annotated].float().unsqueeze(1)
    masks = [mask for target in targets if (mask := target.mask) is not None]
    if any(mask.shape != logits.shape[2:] for mask in masks):
        sizes = sorted({tuple(mask.shape) for mask in masks})
        raise ValueError(f"masks of {sizes} for an image prepared as {tuple(logits.shape[2:])}")
    wanted = torch.stack(masks).unsqueeze(1).to(logits)
    return _dice(logits, wanted), sigmoid_focal_loss(logits, wanted, gamma=FOCAL_GAMMA).mean()


def _instance_loss(
    localization: Localization, targets: Sequence[PhraseTarget]
) -> tuple[Tensor, Tensor, Tensor] | None:
    annotated = [i for i, target in enumerate(targets) if target.boxes is not None]
    if localization.boxes is None or localization.presence_logits is None or not annotated:
        return None
    boxes = localization.boxes[annotated].float()
    logits = localization.presence_logits[annotated].float()
    wanted = [of.to(boxes) for target in targets if (of := target.boxes) is not None]
    pairs = match(boxes, logits, wanted)
    present = torch.zeros_like(logits)
    present[pairs.phrase, pairs.query] = 1
    presence = sigmoid_focal_loss(logits, present, gamma=FOCAL_GAMMA, alpha=PRESENCE_ALPHA).mean()
    matched, target = boxes[pairs.phrase, pairs.query], torch.cat(wanted)[pairs.target]
    pairs_or_one = max(len(matched), 1)
    l1 = (matched - target).abs().mean(dim=-1).sum() / pairs_or_one
    giou = (1 - generalized_iou(matched, target)).sum() / pairs_or_one
    return l1, giou, presence
