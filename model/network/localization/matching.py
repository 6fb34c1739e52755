"""Hungarian matching of instance queries and boxes, as in DETR (ECCV 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from model.network.localization.boxes import generalized_iou

# Weights of the matching cost and of the loss, equal to those of Deformable DETR (ICLR 2021).
L1_WEIGHT = 5.0
GIOU_WEIGHT = 2.0
PRESENCE_WEIGHT = 2.0

DIVERGED_COST = 1e6
"""Cost in place of NaN: larger than any real one."""


class Matches(NamedTuple):
    """Matched pairs of all phrases, one entry for each pair.

    phrase: (pairs,) index of the phrase.
    query: (pairs,) index of its instance query.
    target: (pairs,) index of the box in the concatenated boxes of all phrases.
    """

    phrase: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(boxes: Tensor, presence_logits: Tensor, targets: Sequence[Tensor]) -> Matches:
    """Assign the boxes of each phrase to its queries at the lowest total cost.

    A pair costs 2 (1 - p) + 5 mean|Δ| + 2 (1 - GIoU), an unmatched query costs 2 p, where p is its
    probability of presence. Subtracting the cost of an unmatched query from all its pairs does not
    change the assignment, and leaves only real boxes to assign. The presence terms are linear, as
    in the released code; the paper's text names the focal loss there.

    Args:
        boxes: (phrases, queries, 6) predicted, center and size.
        presence_logits: (phrases, queries).
        targets: for each phrase (N, 6); N may be 0. If N exceeds the queries, the pairs of lowest
            cost are matched.
    """
    counts = [len(of_phrase) for of_phrase in targets]
    device = boxes.device
    phrase = torch.repeat_interleave(torch.tensor(counts, device=device))
    costs = _costs(boxes[phrase], presence_logits[phrase], torch.cat([*targets]))
    # With NaN the solver would raise; a diverged model is to show in its loss.
    costs = costs.nan_to_num(nan=DIVERGED_COST).cpu()
    pairs = [linear_sum_assignment(of_phrase.numpy()) for of_phrase in costs.split(counts)]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    target = [i + start for (rows, _), start in zip(pairs, starts, strict=True) for i in rows]
    query = [int(i) for _, columns in pairs for i in columns]
    chosen = torch.tensor(target, dtype=torch.long, device=device)
    return Matches(phrase[chosen], torch.tensor(query, dtype=torch.long, device=device), chosen)


def _costs(boxes: Tensor, presence_logits: Tensor, targets: Tensor) -> Tensor:
    """Cost (targets, queries) of boxes (targets, queries, 6), minus that of unmatched queries."""
    targets = targets.unsqueeze(1)
    distance = (boxes - targets).abs().mean(dim=-1)
    giou = generalized_iou(boxes, targets)
    probability = presence_logits.sigmoid()
    return PRESENCE_WEIGHT * (1 - 2 * probability) + L1_WEIGHT * distance + GIOU_WEIGHT * (1 - giou)
