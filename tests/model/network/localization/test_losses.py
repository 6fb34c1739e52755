from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from transformers.loss.loss_for_object_detection import sigmoid_focal_loss

from model.data.inputs import PhraseTarget
from model.network.localization.boxes import generalized_iou
from model.network.localization.localizer import Localization
from model.network.localization.losses import LocalizationLoss, localization_loss

SIZE = (4, 6, 8)
PARTS = ("dice", "focal", "l1", "giou", "presence")


@dataclass(frozen=True)
class Whole(Localization):
    """The output of both branches."""

    mask_logits: Tensor
    boxes: Tensor
    presence_logits: Tensor


def gradient(output: Tensor) -> Tensor:
    assert output.grad is not None
    return output.grad


def outputs(phrases: int, queries: int = 6, seed: int = 0) -> Whole:
    torch.manual_seed(seed)
    return Whole(
        mask_logits=torch.randn(phrases, *SIZE, requires_grad=True),
        boxes=torch.rand(phrases, queries, 6, requires_grad=True),
        presence_logits=torch.randn(phrases, queries, requires_grad=True),
    )


def values(loss: LocalizationLoss) -> dict[str, float]:
    return {part: getattr(loss, part).item() for part in PARTS}


def some_mask() -> Tensor:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[1:3, 2:5, 1:4] = True
    return mask


def test_dice_is_the_mean_of_the_phrases_own() -> None:
    found = outputs(2)
    masks = [some_mask(), ~some_mask()]
    expected = []
    for logits, mask in zip(found.mask_logits.detach().double().sigmoid(), masks, strict=True):
        expected.append(1 - 2 * logits[mask].sum() / (logits.sum() + mask.sum()))

    loss = localization_loss(found, [PhraseTarget(mask=mask) for mask in masks])

    assert loss.dice.item() == pytest.approx(float(sum(expected)) / 2, abs=1e-6)


def test_focal_losses_agree_with_transformers() -> None:
    found = outputs(2)
    masks = [some_mask(), ~some_mask()]
    boxes = [found.boxes[0, 2:4].detach(), found.boxes[1, :1].detach()]
    present = torch.zeros(2, 6)
    present[0, 2:4] = present[1, 0] = 1

    loss = localization_loss(
        found, [PhraseTarget(*pair) for pair in zip(masks, boxes, strict=True)]
    )

    wanted = torch.stack(masks).flatten(1).float()
    expected = sigmoid_focal_loss(found.mask_logits.flatten(1), wanted, 2, alpha=-1, gamma=2)
    torch.testing.assert_close(loss.focal, expected, atol=1e-6, rtol=1e-5)
    expected = sigmoid_focal_loss(found.presence_logits, present, 2, alpha=0.85, gamma=2)
    torch.testing.assert_close(loss.presence, expected, atol=1e-6, rtol=1e-5)
    # Targets that the network hit exactly are matched to what hit them.
    assert values(loss)["l1"] == 0
    assert values(loss)["giou"] == 0


def test_boxes_are_scored_over_the_matched_pairs_of_all_phrases() -> None:
    predicted = torch.rand(2, 6)
    found = Localization(boxes=predicted.unsqueeze(1), presence_logits=torch.zeros(2, 1))
    wanted = torch.rand(2, 6)

    loss = localization_loss(found, [PhraseTarget(boxes=box.unsqueeze(0)) for box in wanted])

    torch.testing.assert_close(loss.l1, (predicted - wanted).abs().mean())
    torch.testing.assert_close(loss.giou, (1 - generalized_iou(predicted, wanted)).mean())
    assert values(loss)["dice"] == values(loss)["focal"] == 0


def test_the_total_weighs_the_parts_as_the_paper_does() -> None:
    parts = [torch.tensor(value) for value in (1.0, 10.0, 100.0, 1000.0, 10000.0)]

    assert float(LocalizationLoss(*parts).total) == 2 + 20 + 500 + 2000 + 20000


def test_an_empty_mask_gives_a_constant_dice_and_is_learned_by_the_focal_loss_alone() -> None:
    found = outputs(1)
    target = PhraseTarget(mask=torch.zeros(SIZE, dtype=torch.bool))

    loss = localization_loss(found, [target])

    assert loss.dice.item() == 1
    [of_dice] = torch.autograd.grad(loss.dice, found.mask_logits, retain_graph=True)
    [of_focal] = torch.autograd.grad(loss.focal, found.mask_logits)
    assert not of_dice.any()
    assert (of_focal > 0).all()


def test_absent_instances_teach_presence_alone() -> None:
    found = outputs(1)

    loss = localization_loss(found, [PhraseTarget(boxes=torch.zeros(0, 6))])
    loss.total.backward()

    assert values(loss)["l1"] == values(loss)["giou"] == 0
    assert (gradient(found.presence_logits) > 0).all()
    assert not gradient(found.boxes).any()


def test_more_boxes_than_queries_leave_a_finite_loss() -> None:
    found = outputs(1, queries=2)

    loss = localization_loss(found, [PhraseTarget(boxes=torch.rand(5, 6))])
    loss.total.backward()

    assert loss.total.isfinite()
    assert (gradient(found.presence_logits) < 0).all()


def test_phrases_without_annotation_change_nothing() -> None:
    annotated = outputs(2)
    targets = [PhraseTarget(some_mask(), torch.rand(2, 6)), PhraseTarget(boxes=torch.rand(1, 6))]
    expected = localization_loss(annotated, targets)
    more = Localization(
        *(
            torch.cat([rows[:1], torch.randn(1, *rows.shape[1:]), rows[1:]])
            for rows in (annotated.mask_logits, annotated.boxes, annotated.presence_logits)
        )
    )

    loss = localization_loss(more, [targets[0], PhraseTarget(), targets[1]])

    assert values(loss) == pytest.approx(values(expected), abs=1e-6)


def test_nothing_annotated_gives_zero() -> None:
    loss = localization_loss(outputs(3), [PhraseTarget()] * 3)

    assert set(values(loss).values()) == {0.0}
    assert float(localization_loss(outputs(0), []).total) == 0


def test_a_branch_that_was_not_run_is_not_scored() -> None:
    target = [PhraseTarget(some_mask(), torch.rand(2, 6))]
    both = outputs(1)

    masks = values(localization_loss(Localization(mask_logits=both.mask_logits), target))
    boxes = values(
        localization_loss(
            Localization(boxes=both.boxes, presence_logits=both.presence_logits), target
        )
    )

    assert all(masks[part] > 0 for part in ("dice", "focal"))
    assert all(masks[part] == 0 for part in ("l1", "giou", "presence"))
    assert all(boxes[part] == 0 for part in ("dice", "focal"))
    assert all(boxes[part] > 0 for part in ("l1", "giou", "presence"))


def test_the_order_of_phrases_and_boxes_does_not_matter() -> None:
    found = outputs(3)
    targets = [
        PhraseTarget(some_mask(), torch.rand(3, 6)),
        PhraseTarget(boxes=torch.rand(2, 6)),
        PhraseTarget(~some_mask()),
    ]
    order = [2, 0, 1]
    shuffled = Localization(
        found.mask_logits[order], found.boxes[order].flip(1), found.presence_logits[order].flip(1)
    )
    turned = [
        PhraseTarget(target.mask, None if target.boxes is None else target.boxes.flip(0))
        for target in targets
    ]

    loss = localization_loss(shuffled, [turned[i] for i in order])

    assert values(loss) == pytest.approx(values(localization_loss(found, targets)), abs=1e-6)


def test_boxes_without_a_size_leave_finite_gradients() -> None:
    found = outputs(1)
    with torch.no_grad():
        found.boxes[..., 3:] = 0
    flat = torch.tensor([[0.5, 0.5, 0.5, 0, 0, 0], [0.5, 0.5, 0.5, 0, 0.1, 0.1]])

    loss = localization_loss(found, [PhraseTarget(boxes=flat)])
    loss.total.backward()

    assert loss.total.isfinite()
    assert gradient(found.boxes).isfinite().all()


def test_confident_logits_leave_finite_gradients() -> None:
    found = outputs(2)
    with torch.no_grad():
        found.mask_logits[0] = 1e4
        found.mask_logits[1] = -1e4
        found.presence_logits[:] = 1e4
    targets = [PhraseTarget(torch.zeros(SIZE, dtype=torch.bool), torch.zeros(0, 6))] * 2

    loss = localization_loss(found, targets)
    loss.total.backward()

    assert loss.total.isfinite()
    assert gradient(found.mask_logits).isfinite().all()
    assert gradient(found.presence_logits).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_are_scored_in_single_precision(dtype: torch.dtype) -> None:
    single = outputs(1)
    half = Whole(
        single.mask_logits.to(dtype), single.boxes.to(dtype), single.presence_logits.to(dtype)
    )
    target = [PhraseTarget(some_mask(), torch.rand(2, 6))]
    as_single = Localization(
        half.mask_logits.float(), half.boxes.float(), half.presence_logits.float()
    )

    with torch.autocast("cpu", torch.bfloat16):
        loss = localization_loss(half, target)

    assert loss.total.dtype == torch.float32
    assert values(loss) == values(localization_loss(as_single, target))


def test_targets_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="1 targets for 2 localized phrases"):
        localization_loss(outputs(2), [PhraseTarget()])
    with pytest.raises(ValueError, match=r"masks of \[\(1, 2, 3\)\] .* prepared as \(4, 6, 8\)"):
        localization_loss(outputs(1), [PhraseTarget(mask=torch.ones(1, 2, 3, dtype=torch.bool))])
