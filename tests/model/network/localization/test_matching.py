from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.loss.loss_for_object_detection import HungarianMatcher

from model.network.localization.boxes import generalized_iou
from model.network.localization.matching import match
from tests.model.network.localization.test_boxes import in_3d


def random_case(seed: int, queries: int, targets: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.rand(queries, 6), torch.randn(queries), torch.rand(targets, 6)


def total_cost(
    boxes: Tensor, logits: Tensor, targets: Tensor, pairs: list[tuple[int, int]]
) -> float:
    """What an assignment costs by the definition, left-over queries and all."""
    probability = logits.sigmoid()
    cost = 0.0
    for query, target in pairs:
        distance = (boxes[query] - targets[target]).abs().sum() / 6
        giou = generalized_iou(boxes[query], targets[target])
        cost += float(2 * (1 - probability[query]) + 5 * distance + 2 * (1 - giou))
    left_over = set(range(len(boxes))) - {query for query, _ in pairs}
    return cost + sum(2 * float(probability[query]) for query in left_over)


def cheapest(boxes: Tensor, logits: Tensor, targets: Tensor) -> float:
    """The lowest cost of all assignments, by trying each."""
    queries, count = range(len(boxes)), len(targets)
    if count <= len(boxes):
        tries = [list(zip(of, range(count), strict=True)) for of in permutations(queries, count)]
    else:
        tries = [
            list(zip(queries, of, strict=True)) for of in permutations(range(count), len(boxes))
        ]
    return min(total_cost(boxes, logits, targets, pairs) for pairs in tries)


def pairs_of(boxes: Tensor, logits: Tensor, targets: Tensor) -> list[tuple[int, int]]:
    found = match(boxes.unsqueeze(0), logits.unsqueeze(0), [targets])
    assert found.phrase.tolist() == [0] * len(found.query)
    return list(zip(found.query.tolist(), found.target.tolist(), strict=True))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 7))
def test_no_assignment_is_cheaper(seed: int, queries: int, targets: int) -> None:
    if targets > queries > 4:
        targets = queries
    case = random_case(seed, queries, targets)

    pairs = pairs_of(*case)

    assert len(pairs) == min(queries, targets)
    assert len({query for query, _ in pairs}) == len(pairs) == len({of for _, of in pairs})
    assert total_cost(*case, pairs) == pytest.approx(cheapest(*case), abs=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_transformers_on_the_boxes_of_a_radiograph(seed: int) -> None:
    torch.manual_seed(seed)
    boxes, targets = (torch.rand(n, 4).clamp(min=0.05) for n in (6, 4))
    logits = torch.randn(6)
    # Its costs are -p, the sum of four differences and -GIoU: the same but for constants.
    matcher = HungarianMatcher(class_cost=4, bbox_cost=5 / 6, giou_cost=2)
    outputs = {
        "logits": torch.stack([logits, torch.zeros(6)], -1).unsqueeze(0),
        "pred_boxes": boxes.unsqueeze(0),
    }
    wanted = [{"class_labels": torch.zeros(4, dtype=torch.long), "boxes": targets}]
    [(queries, of)] = matcher(outputs, wanted)

    found = pairs_of(in_3d(boxes), logits, in_3d(targets))

    assert sorted(found) == sorted(zip(queries.tolist(), of.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_queries_and_boxes_does_not_matter(seed: int) -> None:
    boxes, logits, targets = random_case(seed, 6, 4)
    of_query, of_target = torch.randperm(6), torch.randperm(4)

    shuffled = pairs_of(boxes[of_query], logits[of_query], targets[of_target])

    back = {(int(of_query[query]), int(of_target[target])) for query, target in shuffled}
    assert back == set(pairs_of(boxes, logits, targets))


def test_one_box_given_twice_takes_two_queries() -> None:
    boxes, logits, targets = random_case(0, 3, 1)

    pairs = pairs_of(boxes, logits, targets.repeat(2, 1))

    assert {target for _, target in pairs} == {0, 1}
    assert len({query for query, _ in pairs}) == 2


def test_phrases_are_matched_each_for_itself() -> None:
    cases = [random_case(seed, 4, targets) for seed, targets in enumerate((2, 0, 5))]
    boxes, logits = (torch.stack([case[i] for case in cases]) for i in (0, 1))

    found = match(boxes, logits, [targets for _, _, targets in cases])

    assert found.phrase.tolist() == [0, 0, 2, 2, 2, 2]
    expected = []
    for start, case in zip((0, 2, 2), cases, strict=True):
        alone = sorted(pairs_of(*case), key=lambda pair: pair[1])
        expected += [(query, start + target) for query, target in alone]
    assert list(zip(found.query.tolist(), found.target.tolist(), strict=True)) == expected


def test_a_diverged_model_does_not_stop_the_solver() -> None:
    found = match(torch.full((1, 3, 6), torch.nan), torch.zeros(1, 3), [torch.rand(2, 6)])

    assert len(found.query) == 2
