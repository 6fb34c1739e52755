"""The training loss of the localizer.

Masks: Dice and focal loss. Instances: Hungarian matching, then L1 and generalized IoU of the
matched boxes and a focal loss of presence. Weights are those of the paper, or of the released code
where the paper gives none.
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
"""Focusing exponent of both focal losses, as in RetinaNet (ICCV 2017)."""

PRESENCE_ALPHA = 0.85
"""Weight of matched queries in the focal loss of presence; unmatched ones have 1 - 0.85."""

# Without smoothing, an empty target has a constant Dice loss: only the focal loss trains on it.
# smooth_dr keeps the quotient finite where target and prediction are empty.
_dice = DiceLoss(sigmoid=True, smooth_nr=0.0, smooth_dr=1e-8)


@dataclass(frozen=True)
class LocalizationLoss:
    """The parts of one sample's loss, unweighted scalars; 0 without annotations."""

    dice: Tensor
    focal: Tensor
    l1: Tensor
    giou: Tensor
    presence: Tensor

    @property
    def total(self) -> Tensor:
        """The weighted sum, which training minimizes."""
        masks = DICE_WEIGHT * self.dice + FOCAL_WEIGHT * self.focal
        boxes = L1_WEIGHT * self.l1 + GIOU_WEIGHT * self.giou
        return masks + boxes + PRESENCE_WEIGHT * self.presence


def localization_loss(
    localization: Localization, targets: Sequence[PhraseTarget]
) -> LocalizationLoss:
    """Compute the loss of one sample, without unannotated phrases and branches that did not run.

    Dice and focal loss are means over the phrases with a mask, the focal loss of presence over all
    queries of the phrases with boxes, L1 and 1 - GIoU over their matched pairs. An empty mask and
    an empty list of boxes are annotations too. All losses are computed in single precision.

    Args:
        localization: the output for P phrases.
        targets: their P targets, in the same order.

    Raises:
        ValueError: if phrases and targets differ in number, or masks in size.
    """
    outputs = [
        output for output in (localization.mask_logits, localization.boxes) if output is not None
    ]
    for output in outputs:
        if len(output) != len(targets):
            raise ValueError(f"{len(targets)} targets for {len(output)} localized phrases")
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
    annotation = torch.stack(masks).unsqueeze(1).to(logits)
    focal = sigmoid_focal_loss(logits, annotation, gamma=FOCAL_GAMMA).mean()
    return _dice(logits, annotation), focal


def _instance_loss(
    localization: Localization, targets: Sequence[PhraseTarget]
) -> tuple[Tensor, Tensor, Tensor] | None:
    annotated = [i for i, target in enumerate(targets) if target.boxes is not None]
    if localization.boxes is None or localization.presence_logits is None or not annotated:
        return None
    boxes = localization.boxes[annotated].float()
    logits = localization.presence_logits[annotated].float()
    true_boxes = [target.boxes.to(boxes) for target in targets if target.boxes is not None]
    pairs = match(boxes, logits, true_boxes)
    present = torch.zeros_like(logits)
    present[pairs.phrase, pairs.query] = 1
    presence = sigmoid_focal_loss(logits, present, gamma=FOCAL_GAMMA, alpha=PRESENCE_ALPHA).mean()
    matched, target = boxes[pairs.phrase, pairs.query], torch.cat(true_boxes)[pairs.target]
    pair_count = max(len(matched), 1)
    l1 = (matched - target).abs().mean(dim=-1).sum() / pair_count
    giou = (1 - generalized_iou(matched, target)).sum() / pair_count
    return l1, giou, presence
