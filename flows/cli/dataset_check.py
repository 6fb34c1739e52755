"""`vividmed doctor <dataset>`: what is there of a data set, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flows.cli.options import notes, out, store_root
from storage.datasets.declaration import Declaration
from storage.datasets.inspection import Check

_STYLES = {"ok": "green", "part": "yellow", "missing": "red", "more": "yellow"}
_EVERY = 1000
"""Records or images after which the count on the screen is renewed."""


def check_dataset(dataset: str, folder: Path | None, store: str | None, *, as_json: bool) -> None:
    """Print what is there; exit with 1 if something is missing that is needed."""
    from flows.cli.json_output import print_json
    from storage.datasets.reader import DatasetError
    from storage.datasets.registry import find_declaration

    declaration = find_declaration(dataset)
    if folder is None and not declaration.inputs and declaration.folder is None:
        raise DatasetError(
            f"{declaration.name} is not fetched ({declaration.access}): name the folder of your "
            f"copy, as in `vividmed doctor {dataset} FOLDER`"
        )
    checks = [*_inspected(declaration, folder), *_built(store_root(store), declaration)]
    ready = not any(check.is_fault for check in checks)
    if as_json:
        print_json(
            {
                "dataset": declaration.name,
                "ready": ready,
                "checks": [vars(check) for check in checks],
            }
        )
    else:
        _print(declaration, checks)
        if ready:
            option = f" --source {folder}" if folder else ""
            out.print(f"next: vividmed build {dataset}{option}", style="green", soft_wrap=True)
        else:
            out.print(f"there is nothing to build{f' in {folder}' if folder else ''}", style="red")
    if not ready:
        raise typer.Exit(1)


def _inspected(declaration: Declaration, folder: Path | None) -> Iterator[Check]:
    from storage.datasets.inspection import inspect_source

    with notes.status(f"looking at {declaration.name} …") as line:
        count = 0

        def tick() -> None:
            nonlocal count
            count += 1
            if count % _EVERY == 0:
                line.update(f"looking at {declaration.name} … {count:,}")

        yield from inspect_source(declaration, folder, tick)


def _built(root: str, declaration: Declaration) -> Iterator[Check]:
    """What a store tells of the data set: studies that are there twice, and the paper's figures."""
    from storage.datasets.comparison import compared_with_paper
    from storage.funnel import sentence
    from storage.snapshots import current
    from storage.store import Store, StoreError
    from tasks.pipeline.run_summary import stored_summaries

    try:
        for summary in stored_summaries(current(Store(root)), declaration.name):
            if found := summary.duplicates:
                yield Check("duplicates", "more" if found.studies else "ok", found.sentence())
            for split, funnel in summary.funnels.items():
                yield Check(f"selection, {split}", "ok", sentence(funnel))
            for said in compared_with_paper(declaration, summary.funnels):
                yield Check("paper", "ok", said)
    except StoreError as error:
        yield Check("store", "ok", f"not looked into: {error}")


def _print(declaration: Declaration, checks: list[Check]) -> None:
    from flows.cli.fitting import print_table

    table = Table("what", "", "found", box=SIMPLE_HEAD, title=declaration.title)
    table.title_justify, table.title_style = "left", "bold"
    for check in checks:
        table.add_row(check.name, Text(check.verdict, _STYLES[check.verdict]), check.found)
    print_table(table, out)
    if any(check.verdict in ("missing", "part") for check in checks):
        place = f": {declaration.homepage}" if declaration.homepage else ""
        out.print(f"access: {declaration.access}{place}", highlight=False, soft_wrap=True)
