"""`vividmed sql`: a query over the tables of the store."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count, islice
from typing import Annotated

import typer

from flows.cli.options import JsonOption, StoreOption, notes, out, store_root

SHOWN_ROWS = 1000
"""Rows that a table on the screen has at most; its columns' widths need all of them at once."""


def sql(
    query: Annotated[str, typer.Argument(help="A DuckDB query over the tables of the store.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Query the catalogue; `vividmed sql "SHOW TABLES"` lists its views."""
    from flows.cli.fitting import print_table
    from flows.cli.json_output import print_records
    from flows.cli.streams import as_text
    from flows.cli.tables import rows_table
    from storage.catalogue import run_query

    with run_query(store_root(store), as_text(query)) as result:
        for condition in result.incomplete:
            notes.print(f"note: only a part is counted: {condition}", style="yellow")
        if as_json:
            names = _distinct(result.columns)
            print_records(dict(zip(names, row, strict=True)) for row in result.rows)
            return
        print_table(rows_table(result.columns, islice(result.rows, SHOWN_ROWS)), out)
        if next(result.rows, None) is not None:
            out.print(
                f"these are the first {SHOWN_ROWS:,} rows: LIMIT and OFFSET choose others, --json "
                "prints all",
                style="yellow",
            )


def _distinct(columns: Sequence[str]) -> list[str]:
    """Names of columns, none twice: `a`, `a_1`, …, as DuckDB numbers them."""
    names: list[str] = []
    for column in columns:
        numbered = (f"{column}_{n}" for n in count(1))
        free = (name for name in chain([column], numbered) if name not in names)
        # A later column may have the name that a number would make.
        names.append(next(name for name in free if name == column or name not in columns))
    return names
