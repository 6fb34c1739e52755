"""`vividmed sql`: a query over the tables of the store."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from flows.cli.options import JsonOption, StoreOption, out, store_root

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
    from flows.cli.tables import rows_table
    from storage.catalogue import run_query

    with run_query(store_root(store), query) as result:
        if as_json:
            print_records(dict(zip(result.columns, row, strict=True)) for row in result.rows)
            return
        print_table(rows_table(result.columns, islice(result.rows, SHOWN_ROWS)), out)
        if next(result.rows, None) is not None:
            out.print(
                f"these are the first {SHOWN_ROWS:,} rows: LIMIT and OFFSET choose others, --json "
                "prints all",
                style="yellow",
            )
