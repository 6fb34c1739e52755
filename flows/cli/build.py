"""`vividmed build`: fetch what is needed, run the flow on each dataset, show what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.cli.tables import print_accounts
from flows.runtime.prefect_defaults import quiet_prefect
from flows.runtime.signals import end_at_signals
from storage.catalogue import CatalogueError
from storage.inputs import fetch
from storage.store import Store, StoreError
from tasks.pipeline.run_summary import DatasetAccount
from tasks.pipeline.settings import make_settings, read_settings, required_inputs
from tasks.pipeline.stages import pipeline


def build_datasets(
    datasets: Sequence[str], config: Path | None, given: Mapping[str, Any], out: Console
) -> None:
    """Build every dataset, then print the account, the store's path and the gallery's path.

    Raises:
        SettingsError, InputError, DatasetError, StoreError, TaxonomyError: before any work for
            what can be known before; StoreError also while writing.
    """
    chosen = [{"dataset": dataset, **given} for dataset in dict.fromkeys(datasets)]
    runs = [read_settings(config, c) if config else make_settings(c) for c in chosen]
    for settings in runs:
        fetch(required_inputs(settings), out.print)
        pipeline(settings)

    quiet_prefect()
    from flows.build_grounded_reports import build_grounded_reports

    out.print("starting Prefect …")
    accounts = end_at_signals(lambda: [build_grounded_reports(settings) for settings in runs])
    _conclude(runs[0].store, accounts, out)


def _conclude(store: str, accounts: Sequence[DatasetAccount], out: Console) -> None:
    from dashboard.gallery import write_gallery

    print_accounts(accounts, out)
    computed = sum(account.computed_shards for account in accounts)
    shards = sum(stage.shards for account in accounts for stage in account.stages)
    aside = sum(stage.rejects.total() for account in accounts for stage in account.stages)
    if computed:
        out.print(f"{computed} of {shards} shards computed; {aside:,} records set aside")
    else:
        out.print(f"nothing to do: all {shards} shards are in the store")
    out.print(f"store:   {store}")
    try:
        gallery = write_gallery(Store(store))
    except (CatalogueError, StoreError) as fault:
        out.print(f"gallery: not written, {fault}")
    else:
        out.print(f"gallery: {gallery or 'only for a store on this machine'}")
