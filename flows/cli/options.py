"""Options that several commands share, and the console that they print to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.rule import Rule

from flows.cli.near_misses import complete_dataset
from storage.inputs import home

_PIPE_WIDTH = 100_000
"""Characters of a line in a pipe or a file, which need not be as narrow as a screen."""

_RULE_WIDTH = 80

_is_terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed
_width = None if _is_terminal or "COLUMNS" in os.environ else _PIPE_WIDTH
# Texts of reports and of users are shown as they are.
out = Console(markup=False, emoji=False, width=_width)
notes = Console(markup=False, emoji=False, stderr=True, highlight=False, soft_wrap=True)
"""For progress and remarks, so that standard output holds the result alone."""

DatasetArgument = Annotated[
    str,
    typer.Argument(
        help="A data set, or the YAML file that declares one; an unknown name gets the list of "
        "all.",
        autocompletion=complete_dataset,
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option(help="YAML file with settings; see configs/ for examples.")
]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="Folder of the store, or s3://bucket/prefix.")
]
SourceOption = Annotated[Path | None, typer.Option(help="Folder with the data set's own files.")]
LimitOption = Annotated[int | None, typer.Option(help="Only the first reports.")]
ShardSizeOption = Annotated[int | None, typer.Option(help="Reports per shard.")]
SectionsOption = Annotated[
    str | None, typer.Option(help="Sections a report must have: both or any.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def rule(title: str) -> None:
    """Print a heading across the screen."""
    out.print(Rule(title), width=min(out.width, _RULE_WIDTH))


def store_root(store: str | None) -> str:
    """The store that the user names, or the one in the data folder."""
    return str(home() / "store") if store is None else store


def given(**options: Any) -> dict[str, Any]:
    """The options that the user gave, as values of settings."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None
    }
