"""`vividmed snapshots` and `vividmed rollback`: the versions of a data set in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.near_misses import complete_dataset
from flows.cli.options import JsonOption, StoreOption, notes, out, store_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.snapshots import Snapshot
    from storage.store import Store

_DIGEST_SHOWN = 12
"""Characters of a taxonomy's digest, which tell apart those of a store."""

_COLUMNS: dict[str, Literal["left", "right"]] = {
    "version": "right",
    "made at": "left",
    "taxonomy": "left",
    "shards": "right",
    "changed": "right",
    "shared": "right",
    "": "left",
}

HeldDataset = Annotated[
    str, typer.Argument(help="A data set of the store.", autocompletion=complete_dataset)
]


def snapshots(
    dataset: HeldDataset,
    store: StoreOption = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Remove all versions but the newest of this number.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a data set, and what each changed; the last one is current."""
    from flows.cli.json_output import print_records
    from storage.snapshots import read_snapshot, snapshot_numbers
    from storage.store import Store
    from storage.switching import prune

    place = Store(store_root(store))
    _require_held(place, dataset)
    if keep is not None and (removed := prune(place, dataset, keep)):
        notes.print(f"removed of {dataset}: {', '.join(f'version {n}' for n in removed)}")
    versions = [read_snapshot(place, dataset, n) for n in snapshot_numbers(place, dataset)]
    if not versions:
        read_snapshot(place, dataset)  # says that there is none
    records = _records(versions)
    if as_json:
        print_records(records)
    else:
        _print_versions(records)


def rollback(
    dataset: HeldDataset,
    number: Annotated[
        int | None, typer.Argument(help="The version; the one before the current one, if none.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an earlier version of a data set current again; no version is lost by it."""
    from flows.cli.json_output import print_json
    from storage import switching
    from storage.store import Store

    place = Store(store_root(store))
    _require_held(place, dataset)
    made = switching.rollback(place, dataset, number)
    _renew_views(place)
    if as_json:
        print_json({"dataset": dataset, "version": made.number, "restores": made.restores})
    else:
        out.print(
            f"{dataset} is again as in version {made.restores}: this is now version {made.number}; "
            f"`vividmed rollback {dataset} {made.parent}` undoes it",
            highlight=False,
            soft_wrap=True,
        )


def _renew_views(store: Store) -> None:
    """Renew the catalogue and the gallery; another data set's damaged shard hinders only them."""
    from dashboard.gallery import write_gallery
    from storage.catalogue import CatalogueError, write_catalogue
    from storage.store import StoreError

    for view in (write_catalogue, write_gallery):
        try:
            view(store)
        except (CatalogueError, StoreError) as error:
            notes.print(f"note: {error}")


def _require_held(store: Store, dataset: str) -> None:
    """Tell a data set that the store does not hold from one without versions."""
    from flows.cli.near_misses import not_held
    from storage.manifests import manifest_paths

    if not manifest_paths(store, dataset):
        raise not_held(store, dataset)


def _records(versions: Sequence[Snapshot]) -> list[dict[str, Any]]:
    """What is said of each version; what it changed is against the version before it."""
    by_number = {version.number: version for version in versions}
    records = []
    for version in versions:
        before = by_number.get(version.parent or 0)
        shared = None if before is None else version.shards.items() & before.shards.items()
        records.append(
            {
                "version": version.number,
                "made_at": version.made_at,
                "taxonomy": version.taxonomy,
                "parent": version.parent,
                "restores": version.restores,
                "shards": len(version.shards),
                "shards_shared": None if shared is None else len(shared),
                "shards_changed": None if shared is None else len(version.shards) - len(shared),
                "rows": sum(file.rows for file in version.files),
                "is_current": version is versions[-1],
            }
        )
    return records


def _print_versions(records: Sequence[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from flows.cli.fitting import print_table

    table = Table(box=SIMPLE_HEAD)
    for heading, justify in _COLUMNS.items():
        table.add_column(heading, justify=justify)
    for record in records:
        remarks = [f"as version {record['restores']}"] if record["restores"] else []
        remarks += ["current"] if record["is_current"] else []
        table.add_row(
            str(record["version"]),
            record["made_at"],
            record["taxonomy"][:_DIGEST_SHOWN],
            *(_count(record[name]) for name in ("shards", "shards_changed", "shards_shared")),
            ", ".join(remarks),
        )
    print_table(table, out)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
