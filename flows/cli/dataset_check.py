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
    from storage.datasets.registry import find_declaration

    declaration = find_declaration(dataset)
    checks = [
        *_inspected(declaration, folder),
        *_duplicates(store_root(store), declaration.name),
        *_selected(store_root(store), declaration),
    ]
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
            out.print("there is nothing to build", style="red")
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


def _duplicates(root: str, dataset: str) -> Iterator[Check]:
    """What a build found of studies that are there twice."""
    from storage.duplicates import read_duplicates
    from storage.plans import read_holdings
    from storage.store import Store, StoreError

    try:
        store = Store(root)
        for holding in read_holdings(store, dataset):
            if found := read_duplicates(store, holding):
                yield Check("duplicates", "more" if found.studies else "ok", found.sentence())
    except StoreError as error:
        yield Check("duplicates", "ok", f"not known: {error}")


def _selected(root: str, declaration: Declaration) -> Iterator[Check]:
    """What the rules of a build took out, and what the paper kept."""
    from storage.datasets.comparison import compared_with_paper
    from storage.funnel import sentence
    from storage.store import Store, StoreError
    from tasks.pipeline.run_summary import stored_summaries

    try:
        for summary in stored_summaries(Store(root), declaration.name):
            for split, funnel in summary.funnels.items():
                yield Check(f"selection, {split}", "ok", sentence(funnel), needed=False)
            if summary.funnels:
                for said in compared_with_paper(declaration, summary.funnels):
                    yield Check("the paper", "ok", said, needed=False)
    except StoreError as error:
        yield Check("selection", "ok", f"not known: {error}", needed=False)


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
