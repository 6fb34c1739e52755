"""`vividmed sql`: a query over the tables of the store."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flows.cli.options import JsonOption, StoreOption, out, store_root


def sql(
    query: Annotated[str, typer.Argument(help="A DuckDB query over the tables of the store.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Query the catalogue; `vividmed sql "SHOW TABLES"` lists its views."""
    from flows.cli.tables import rows_table
    from storage.catalogue import query_rows

    columns, rows = query_rows(store_root(store), query)
    if as_json:
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        typer.echo(json.dumps(records, indent=1, ensure_ascii=False, default=str))
    else:
        out.print(rows_table(columns, rows))
