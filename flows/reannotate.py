"""`reannotate`: bring the data sets of a store up to date with its taxonomy.

Deployed as `reannotate/on-taxonomy-change`, it runs on a schedule and when a taxonomy is published
(`flows.runtime.taxonomy_events`). It ends at once where every data set is up to date; else it
builds the others as they were built before, and a build reads only what the change touches.
"""

from __future__ import annotations

from prefect import flow, get_run_logger

from flows.build_grounded_reports import build_grounded_reports
from storage.inputs import home
from storage.store import Store
from tasks.pipeline.last_settings import settings_of
from tasks.pipeline.run_summary import DatasetSummary
from tasks.pipeline.taxonomies import outdated, taxonomy_of_store

NAME = "reannotate"


@flow(name=NAME, flow_run_name="{store}")
def reannotate(store: str | None = None, datasets: list[str] | None = None) -> list[DatasetSummary]:
    """Annotate again what the taxonomy of a store has changed.

    Args:
        store: a folder or a bucket; the one in the data folder when not given.
        datasets: names of data sets; all of the store when not given.

    Returns:
        the summary of each data set that was not up to date.
    """
    place = Store(store or str(home() / "store"))
    old = outdated(place, taxonomy_of_store(place))
    chosen = [name for name in old if not datasets or name in datasets]
    if not chosen:
        get_run_logger().info(f"{place.root}: every data set is up to date with its taxonomy")
    # All settings are read first: a data set that cannot be built again is told before any work.
    runs = [settings_of(place, name) for name in chosen]
    return [build_grounded_reports(settings) for settings in runs]
