"""Training until the model has memorized a few samples: AdamW on one packed batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

from model.data.inputs import Sample, pack
from model.network.vividmed import VividMedForCausalLM


@dataclass(frozen=True)
class Schedule:
    """Hyperparameters; the learning rate has a linear warm-up and a cosine decay."""

    steps: int = 1150
    warmup: int = 50  # steps
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    gradient_norm: float = 1.0  # gradients are clipped to this norm


def train(
    model: VividMedForCausalLM,
    samples: Sequence[Sample],
    schedule: Schedule,
    report: Callable[[int, float], None] = lambda _step, _loss: None,
) -> None:
    """Train on all samples at every step.

    Args:
        model: in evaluation mode afterwards.
        samples: images and texts of any size; packed once.
        schedule: the hyperparameters.
        report: called with each step and its loss.
    """
    # All samples in every step: the loss is deterministic, and no order of samples matters.
    batch = pack(samples)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, schedule.weight_decay), lr=schedule.learning_rate
    )
    scheduler = get_cosine_schedule_with_warmup(optimizer, schedule.warmup, schedule.steps)
    model.train()
    for step in range(schedule.steps):
        output = model(**vars(batch))
        optimizer.zero_grad()
        output.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), schedule.gradient_norm)
        optimizer.step()
        scheduler.step()
        report(step, output.loss.item())
    model.eval()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups with weight decay on linear and transposed convolution layers only.

    Biases, norms and embeddings have none, nor have the patch kernels, whose scale depends on that
    of the voxels.
    """
    decayed_types = (nn.Linear, nn.ConvTranspose3d)
    decayed = {id(layer.weight) for layer in model.modules() if isinstance(layer, decayed_types)}
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter in model.parameters():
        groups[id(parameter) in decayed].append(parameter)
    return [
        {"params": groups[False], "weight_decay": 0.0},
        {"params": groups[True], "weight_decay": weight_decay},
    ]
