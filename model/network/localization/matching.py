"""Which instance query answers for which box: Hungarian matching, as in DETR (ECCV 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from model.network.localization.boxes import generalized_iou

L1_WEIGHT = 5.0
GIOU_WEIGHT = 2.0
PRESENCE_WEIGHT = 2.0


class Matches(NamedTuple):
    """Matched pairs of all phrases, one entry a pair.

    phrase: (pairs,) index of the phrase.
    query: (pairs,) index of its instance query.
    target: (pairs,) index of the box in the boxes of all phrases, one behind the other.
    """

    phrase: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(boxes: Tensor, presence_logits: Tensor, targets: Sequence[Tensor]) -> Matches:
    """Assign the boxes of each phrase to its queries at the lowest total cost.

    A pair costs 2 (1 - p) + 5 mean|Δ| + 2 (1 - GIoU); a query that is left over costs 2 p, where p
    is its probability of presence. Taking a query's own cost of being left over from its pairs
    changes no assignment and leaves one column a box. The presence terms are linear, as in the
    released code; the paper's text names the focal loss there.

    Args:
        boxes: (phrases, queries, 6) predicted, centre and size.
        presence_logits: (phrases, queries).
        targets: for each phrase (N, 6); N may be 0, and of more boxes than queries the cheapest
            are matched.
    """
    counts = [len(of) for of in targets]
    device = boxes.device
    phrase = torch.repeat_interleave(torch.tensor(counts, device=device))
    costs = _costs(boxes[phrase], presence_logits[phrase], torch.cat([*targets]))
    # A diverged model shall show in its loss, not as an error of the solver.
    costs = costs.nan_to_num(nan=1e6).cpu()
    pairs = [linear_sum_assignment(of.numpy()) for of in costs.split(counts)]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    target = [i + start for (rows, _), start in zip(pairs, starts, strict=True) for i in rows]
    query = [int(i) for _, columns in pairs for i in columns]
    chosen = torch.tensor(target, dtype=torch.long, device=device)
    return Matches(phrase[chosen], torch.tensor(query, dtype=torch.long, device=device), chosen)


def _costs(boxes: Tensor, presence_logits: Tensor, targets: Tensor) -> Tensor:
    """Cost (targets, queries) of boxes (targets, queries, 6), less that of being left over."""
    targets = targets.unsqueeze(1)
    distance = (boxes - targets).abs().mean(dim=-1)
    giou = generalized_iou(boxes, targets)
    probability = presence_logits.sigmoid()
    return PRESENCE_WEIGHT * (1 - 2 * probability) + L1_WEIGHT * distance + GIOU_WEIGHT * (1 - giou)
