"""`vividmed reannotate`: bring the data sets of a store up to date with its taxonomy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.near_misses import complete_dataset
from flows.cli.options import JsonOption, StoreOption, notes, out, store_root

if TYPE_CHECKING:
    from tasks.pipeline.run_summary import DatasetSummary


def reannotate(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Data sets of the store; all if none.", autocompletion=complete_dataset
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Annotate again what a change of the taxonomy touches, in every data set of a store."""
    from flows.cli.build import print_result
    from flows.cli.near_misses import not_held
    from flows.runtime.signals import end_at_signals
    from storage.plans import read_holdings
    from storage.store import Store
    from tasks.pipeline.taxonomies import outdated, taxonomy_of_store

    place = Store(store_root(store))
    held = {holding.dataset for holding in read_holdings(place)}
    for name in datasets or ():
        if name not in held:
            raise not_held(place, name)
    old = [n for n in outdated(place, taxonomy_of_store(place)) if not datasets or n in datasets]
    if not old and not as_json:
        out.print("nothing to do: every data set is up to date with its taxonomy")
        return
    notes.print("starting Prefect …")
    summaries = end_at_signals(lambda: _run_flow(place.root, old))
    print_result(place.root, summaries, as_json=as_json)


def _run_flow(store: str, datasets: list[str]) -> list[DatasetSummary]:
    from flows.runtime.prefect_defaults import quiet_prefect

    quiet_prefect()  # before Prefect is imported
    from flows.runtime.prefect_server import open_server
    from flows.runtime.signals import end_when_lost

    end_when_lost(open_server(notes.print))
    from flows.reannotate import reannotate as flow

    return flow(store, datasets)
