"""`vividmed status`: the run summary of what the store holds, and what is missing."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.near_misses import complete_dataset, not_held
from flows.cli.options import JsonOption, StoreOption, out, store_root


def status(
    dataset: Annotated[
        str, typer.Argument(help="One data set; all if none.", autocompletion=complete_dataset)
    ] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the store holds: rows in, rows out and rejects of every stage."""
    from flows.cli.json_output import print_records
    from flows.cli.tables import print_summaries
    from storage.plans import read_holdings
    from storage.snapshots import current, versions_of
    from storage.store import Store
    from storage.tables import damaged_shards
    from tasks.pipeline.run_summary import summarize_holding
    from tasks.pipeline.taxonomies import outdated, taxonomy_of_store

    place = current(Store(store_root(store)))
    holdings = read_holdings(place, dataset)
    if not holdings:
        raise not_held(place, dataset)
    versions = {version.dataset: version.number for version in versions_of(place)}
    damaged = {holding.dataset: damaged_shards(place, holding) for holding in holdings}
    old = outdated(place, taxonomy_of_store(place))
    summaries = [summarize_holding(place, holding) for holding in holdings]
    if as_json:
        print_records(
            summary.as_json()
            | {
                "complete": holding.is_complete and not damaged[holding.dataset],
                "damaged_shards": damaged[holding.dataset],
                "missing_shards": holding.missing,
                "older_shards": len(holding.older),
                "stages_of_mixed_settings": holding.mixed,
                "version": versions.get(holding.dataset),
                "taxonomy_is_current": holding.dataset not in old,
            }
            for summary, holding in zip(summaries, holdings, strict=True)
        )
        return
    print_summaries(summaries, out)
    for holding in holdings:
        shards = damaged[holding.dataset]
        if shards:
            out.print(
                f"{holding.dataset}: shards are damaged or gone ({len(shards):,}), such as "
                f"{place.location(shards[0])}: `vividmed build` makes them again",
                style="red",
                highlight=False,
                soft_wrap=True,
            )
        if not (shards and holding.is_complete):
            style = "green" if holding.is_complete else "yellow"
            out.print(holding.condition(), style=style, highlight=False, soft_wrap=True)
        if holding.dataset in old:
            out.print(
                f"{holding.dataset}: built with an earlier taxonomy: `vividmed taxonomy diff` "
                "says what changed, `vividmed build` brings the tags up to date",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )
