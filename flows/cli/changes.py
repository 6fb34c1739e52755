"""`vividmed changes`: what changed in a data set from one version to another."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import JsonOption, StoreOption, out, store_root
from flows.cli.snapshots import HeldDataset


def changes(
    dataset: HeldDataset,
    before: Annotated[
        int | None, typer.Argument(help="The earlier version; the one before `after`, if none.")
    ] = None,
    after: Annotated[
        int | None, typer.Argument(help="The later version; the current one, if none.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which tags and groundings changed from one version of a data set to another."""
    from dataclasses import asdict

    from flows.cli.fitting import print_table
    from flows.cli.json_output import print_records
    from flows.cli.tables import rows_table
    from storage.snapshots import open_snapshot, read_snapshot
    from storage.store import Store, StoreError
    from tasks.pipeline.release_note import release_note

    place = Store(store_root(store))
    later = read_snapshot(place, dataset, after)
    earlier = before or later.parent
    if earlier is None:
        raise StoreError(f"{dataset} has one version alone: there is nothing to compare it with")
    note = release_note(
        open_snapshot(place, dataset, earlier),
        open_snapshot(place, dataset, later.number),
        dataset,
    )
    if as_json:
        print_records(asdict(change) for change in note.changes)
        return
    out.print(f"{dataset}, version {earlier} to {later.number}: {note.headline()}")
    if note.changes:
        columns = ("target", "change", "tags", "such as")
        print_table(rows_table(columns, note.lines()), out)
