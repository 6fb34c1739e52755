"""Recognize the layout of a checkpoint by its keys, and load it completely or not at all."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from model.checkpoints.layouts import LAYOUTS
from model.checkpoints.report import CheckReport
from model.checkpoints.transfer import Layout, transfer
from model.checkpoints.weights import CheckpointError, Weights


def recognize(weights: Weights) -> Layout:
    """Return the layout of a checkpoint.

    Raises:
        CheckpointError: if the layout is unknown.
    """
    for layout in LAYOUTS:
        if layout.signature in weights:
            return layout
    raise CheckpointError(
        f"{weights.path} is of no known layout ({', '.join(layout.name for layout in LAYOUTS)}):"
        f" its first key is {next(iter(weights), 'missing, it is empty')}"
    )


def load_into(module: nn.Module, path: Path, expected: tuple[Layout, ...]) -> CheckReport:
    """Load a checkpoint into a module, after checking its headers.

    Args:
        module: its parameters are written in place and keep their dtypes.
        path: the checkpoint's folder or file.
        expected: the layouts that may be loaded into the module.

    Raises:
        CheckpointError: if the checkpoint is damaged or of another layout, or if tensors that its
            layout has for the module are missing or differ in shape; nothing is written then.
    """
    headers = Weights(path, headers=True)
    layout = recognize(headers)
    if layout not in expected:
        wanted = " or ".join(other.name for other in expected)
        raise CheckpointError(f"{path} is a checkpoint of {layout.name}, not of {wanted}")
    targets = module.state_dict()
    blank = {key: tensor.to("meta") for key, tensor in targets.items()}
    transfer(headers, layout, blank).require_complete()
    report = transfer(Weights(path), layout, targets)
    report.require_complete()
    return report
