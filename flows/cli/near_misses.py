"""What a user may have meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.store import Store, StoreError


def perhaps(name: str, known: Iterable[str]) -> str:
    """`, perhaps X was meant` for the most similar known name, whatever its case; else nothing."""
    by_form = {one.casefold(): one for one in known}
    near = get_close_matches(name.casefold(), by_form, 1)
    return "".join(f", perhaps {by_form[one]} was meant" for one in near)


def not_held(store: Store, dataset: str, *others: str) -> StoreError:
    """Why a store cannot show a data set: it is not built yet, or there is none of that name.

    Args:
        store: the store.
        dataset: what the user asked for.
        others: what the command takes beside data sets.
    """
    from storage.datasets.registry import dataset_names
    from storage.plans import read_holdings
    from storage.store import StoreError
    from storage.sweeping import nothing_held

    held = [holding.dataset for holding in read_holdings(store)]
    known = {*held, *dataset_names(), *others}
    if dataset in known:
        return nothing_held(store, dataset)
    meant = perhaps(dataset, known)
    if not (held or meant):
        return nothing_held(store)
    there = f"it has {', '.join(held)}" if held else "it is empty, and `vividmed build` fills it"
    return StoreError(f"{store.root} holds no data set {dataset}{meant}: {there}")


def complete_dataset(incomplete: str) -> list[str]:
    """The data sets whose names begin with what was typed, for the completion of shells."""
    from storage.datasets.registry import dataset_names

    return [name for name in dataset_names() if name.startswith(incomplete)]
