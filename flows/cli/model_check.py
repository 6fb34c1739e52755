"""`vividmed model check`: how a checkpoint compares with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from flows.cli.options import JsonOption, out
from flows.cli.predict import require_torch
from storage.inputs import InputError

if TYPE_CHECKING:
    from model.checkpoints.report import CheckReport, Reshaped

_SHOWN_KEYS = 8


def check(
    path: Annotated[Path, typer.Argument(help="A checkpoint's folder or file.")],
    config: Annotated[
        str | None, typer.Option(help="paper, tiny, mid, or a folder with a config.json.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a checkpoint's tensors with the model's, without loading them."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        # PyTorch takes seconds to import, and as long to leave.
        raise InputError(f"{path} holds no weights: give a checkpoint's file or folder")
    require_torch()
    from model.checkpoints.check import check as compare

    report = compare(path, config)
    if as_json:
        typer.echo(report.model_dump_json(indent=1))
    else:
        _print_report(report)
    if not report.fits:
        raise typer.Exit(1)


def _print_report(report: CheckReport) -> None:
    types = ", ".join(f"{count:,} {dtype}" for dtype, count in report.dtypes.items())
    out.print(f"{report.path}: {report.layout}", style="bold", highlight=False)
    out.print(
        f"{report.tensors:,} tensors ({types}), {report.parameters:,} parameters", highlight=False
    )
    _list("missing", report.missing)
    _list("not known to the model", report.unexpected)
    _list_by_reason("not needed", report.ignored)
    _list_by_reason("not in this layout", report.absent)
    _list_reshaped("of another shape", report.mismatched)
    _list_reshaped("converted", report.reshaped)
    verdict = Text("fits", "green") if report.fits else Text("does not fit", "red")
    out.print(verdict)


def _list(title: str, keys: Sequence[str]) -> None:
    if keys:
        more = len(keys) - _SHOWN_KEYS
        out.print(f"{len(keys):,} {title}:", highlight=False)
        for key in keys[:_SHOWN_KEYS]:
            out.print(f"  {key}", highlight=False)
        if more > 0:
            out.print(f"  and {more:,} more; --json lists them all", highlight=False)


def _list_by_reason(title: str, keys: Mapping[str, Sequence[str]]) -> None:
    for reason, of_reason in keys.items():
        _list(f"{title} ({reason})", of_reason)


def _list_reshaped(title: str, tensors: Sequence[Reshaped]) -> None:
    lines = [
        f"{entry.target}: {_shape(entry.from_shape)} → {_shape(entry.to_shape)} {entry.how}".strip()
        for entry in tensors
    ]
    _list(title, lines)


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "one number"
