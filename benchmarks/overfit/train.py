"""Training on a few samples until they are known by heart: AdamW on one packed batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

from model.data.inputs import Sample, pack
from model.network.vividmed import VividMedForCausalLM


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the learning rate rises linearly and falls along a cosine."""

    steps: int = 1150
    warmup: int = 50
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    gradient_norm: float = 1.0


def train(
    model: VividMedForCausalLM,
    samples: Sequence[Sample],
    schedule: Schedule,
    report: Callable[[int, float], None] = lambda _step, _loss: None,
) -> None:
    """Train on all samples at every step.

    Args:
        model: left in evaluation mode.
        samples: packed once; images and texts of any size.
        schedule: see there.
        report: is told each step and its loss.
    """
    batch = pack(samples)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, schedule.weight_decay), lr=schedule.learning_rate
    )
    pace = get_cosine_schedule_with_warmup(optimizer, schedule.warmup, schedule.steps)
    model.train()
    for step in range(schedule.steps):
        output = model(**vars(batch))
        optimizer.zero_grad()
        output.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), schedule.gradient_norm)
        optimizer.step()
        pace.step()
        report(step, output.loss.item())
    model.eval()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay the weights of linear and convolution layers.

    Not the rest: biases, norms, embeddings, and the patch kernels, whose scale is that of the
    voxels.
    """
    kinds = (nn.Linear, nn.ConvTranspose3d)
    decayed = {id(of.weight) for of in model.modules() if isinstance(of, kinds)}
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter in model.parameters():
        groups[id(parameter) in decayed].append(parameter)
    return [
        {"params": groups[False], "weight_decay": 0.0},
        {"params": groups[True], "weight_decay": weight_decay},
    ]
