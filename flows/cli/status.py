"""`vividmed status`: the run summary of what the store holds."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flows.cli.options import JsonOption, StoreOption, out, store_root


def status(
    dataset: Annotated[str, typer.Argument(help="One data set; all if none.")] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the store holds: rows in, rows out and rejects of every stage."""
    from flows.cli.tables import print_summaries
    from storage.store import Store, StoreError
    from tasks.pipeline.run_summary import stored_summaries

    place = Store(store_root(store))
    summaries = stored_summaries(place, dataset)
    if not summaries:
        what = dataset or "anything"
        raise StoreError(f"{place.root} does not hold {what} yet: run `vividmed build` first")
    if as_json:
        typer.echo(json.dumps([summary.as_json() for summary in summaries], indent=1))
    else:
        print_summaries(summaries, out)
