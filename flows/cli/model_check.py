"""The command `model check`: what a checkpoint is, and what our model would make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from flows.cli.predict import require_torch

if TYPE_CHECKING:
    from model.checkpoints.report import CheckReport, Reshaped

_SHOWN_KEYS = 8


def check_checkpoint(path: Path, config: str | None, out: Console, *, as_json: bool) -> bool:
    """Print what a checkpoint is; return whether it fits our model.

    Raises:
        CheckpointError: if the checkpoint or the configuration is absent, damaged or foreign.
    """
    require_torch()
    from model.checkpoints.check import check

    report = check(path, config)
    if as_json:
        typer.echo(report.model_dump_json(indent=1))
    else:
        _show(report, out)
    return report.fits


def _show(report: CheckReport, out: Console) -> None:
    types = ", ".join(f"{count:,} {dtype}" for dtype, count in report.dtypes.items())
    out.print(f"{report.path}: {report.layout}", style="bold", highlight=False)
    out.print(
        f"{report.tensors:,} tensors ({types}), {report.parameters:,} parameters", highlight=False
    )
    _list("missing", report.missing, out)
    _list("not known to our model", report.unexpected, out)
    _list_by_reason("not needed", report.ignored, out)
    _list_by_reason("not in this layout", report.absent, out)
    _list_reshaped("of another shape", report.mismatched, out)
    _list_reshaped("converted", report.reshaped, out)
    verdict = Text("fits", "green") if report.fits else Text("does not fit", "red")
    out.print(verdict)


def _list(title: str, keys: Sequence[str], out: Console) -> None:
    if keys:
        more = len(keys) - _SHOWN_KEYS
        out.print(f"{len(keys):,} {title}:", highlight=False)
        for key in keys[:_SHOWN_KEYS]:
            out.print(f"  {key}", highlight=False)
        if more > 0:
            out.print(f"  and {more:,} more; --json lists them all", highlight=False)


def _list_by_reason(title: str, keys: Mapping[str, Sequence[str]], out: Console) -> None:
    for reason, of_reason in keys.items():
        _list(f"{title} ({reason})", of_reason, out)


def _list_reshaped(title: str, tensors: Sequence[Reshaped], out: Console) -> None:
    lines = [
        f"{entry.target}: {_shape(entry.from_shape)} → {_shape(entry.to_shape)} {entry.how}".strip()
        for entry in tensors
    ]
    _list(title, lines, out)


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "one number"
