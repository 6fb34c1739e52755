"""`vividmed catalogue`: the views of a store for any DuckDB client, written again."""

from __future__ import annotations

from flows.cli.options import JsonOption, StoreOption, out, store_root


def catalogue(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Write the DuckDB views of a store again, as after it was moved to another folder."""
    from flows.cli.json_output import print_json
    from storage.catalogue import write_catalogue
    from storage.plans import read_holdings
    from storage.store import Store, StoreError
    from storage.sweeping import nothing_held

    place = Store(store_root(store))
    if not place.is_local:
        raise StoreError(f"{place.root} is a bucket, which has no file of views: `vividmed sql`")
    if not read_holdings(place):
        raise nothing_held(place)
    written = write_catalogue(place)
    if as_json:
        print_json({"catalogue": written})
    else:
        out.print(f"catalogue: {written}", soft_wrap=True)
