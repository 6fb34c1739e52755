"""Recognise a checkpoint by its keys, and load it whole or not at all."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from model.checkpoints.layouts import LAYOUTS
from model.checkpoints.report import CheckReport
from model.checkpoints.transfer import Layout, transfer
from model.checkpoints.weights import CheckpointError, Weights


def recognise(weights: Weights) -> Layout:
    """Return the layout of a checkpoint.

    Raises:
        CheckpointError: if it is of none that is known.
    """
    for layout in LAYOUTS:
        if layout.signature in weights:
            return layout
    raise CheckpointError(
        f"{weights.path} is of no known layout ({', '.join(of.name for of in LAYOUTS)}):"
        f" its keys are like {next(iter(weights), 'none at all')}"
    )


def load_into(module: nn.Module, path: Path, expected: tuple[Layout, ...]) -> CheckReport:
    """Load a checkpoint into a module of ours, after a look at its headers alone.

    Args:
        module: its parameters are written in place and keep their types.
        path: the checkpoint's folder or file.
        expected: the layouts that may be loaded into the module.

    Raises:
        CheckpointError: if the checkpoint is damaged, of another layout, or lacks or has other
            shapes of tensors that its layout has for the module; then nothing was written.
    """
    headers = Weights(path, headers=True)
    layout = recognise(headers)
    if layout not in expected:
        wanted = " or ".join(of.name for of in expected)
        raise CheckpointError(f"{path} is a checkpoint of {layout.name}, and not of {wanted}")
    targets = module.state_dict()
    blank = {key: ours.to("meta") for key, ours in targets.items()}
    transfer(headers, layout, blank).require_complete()
    report = transfer(Weights(path), layout, targets)
    report.require_complete()
    return report
