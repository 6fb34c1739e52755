"""`vividmed build`: fetch what is needed, run the flow on each data set, show the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.near_misses import complete_dataset
from flows.cli.options import (
    ConfigOption,
    JsonOption,
    LimitOption,
    SectionsOption,
    ShardSizeOption,
    SourceOption,
    StoreOption,
    given,
    notes,
    out,
)

if TYPE_CHECKING:
    from tasks.pipeline.run_summary import DatasetSummary
    from tasks.pipeline.settings import BuildSettings
    from tasks.pipeline.stages import Pipeline


def build(
    datasets: Annotated[
        list[str],
        typer.Argument(
            help="Data sets, or YAML files that declare them; an unknown name lists all.",
            autocompletion=complete_dataset,
        ),
    ],
    config: ConfigOption = None,
    store: StoreOption = None,
    source: SourceOption = None,
    limit: LimitOption = None,
    shard_size: ShardSizeOption = None,
    require_sections: SectionsOption = None,
    keep_uncertain: Annotated[
        bool, typer.Option(help="Count findings that are only possible as positive, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the grounded reports of one or more data sets; finished shards are skipped."""
    options = given(
        store=store,
        source=source,
        limit=limit,
        shard_size=shard_size,
        require_sections=require_sections,
        positive=("present", "probable", "possible") if keep_uncertain else None,
    )
    _build_datasets(datasets, config, options, as_json=as_json)


def _build_datasets(
    datasets: Sequence[str], config: Path | None, options: Mapping[str, Any], *, as_json: bool
) -> None:
    """Build every data set, then print the summary, the store's path and the gallery's path.

    Settings, sources and the store of every run are checked before the first one starts.
    """
    from flows.runtime.signals import end_at_signals
    from storage.inputs import fetch
    from storage.sweeping import has_earlier_layout
    from tasks.pipeline.settings import make_settings, read_settings, required_inputs
    from tasks.pipeline.stages import pipeline

    chosen = [{"dataset": dataset, **options} for dataset in dict.fromkeys(datasets)]
    runs = [read_settings(config, c) if config else make_settings(c) for c in chosen]
    for settings in runs:
        fetch(required_inputs(settings), notes.print)
        if has_earlier_layout(pipeline(settings).store, settings.dataset):
            notes.print(
                f"{settings.dataset} is in the store in folders of an earlier version: it is built "
                "anew, and the old folders are then removed",
                style="yellow",
            )
        _tell_what_was_found(pipeline(settings))
        _tell_of_missing_images(settings)

    notes.print("starting Prefect …")
    summaries = end_at_signals(lambda: _run_flows(runs))
    print_result(runs[0].store, summaries, as_json=as_json)


def _tell_what_was_found(run: Pipeline) -> None:
    from storage.datasets.reader import FindsFiles

    if isinstance(run.reader, FindsFiles):
        notes.print("\n".join(run.reader.found()), highlight=False, soft_wrap=True)


def _tell_of_missing_images(settings: BuildSettings) -> None:
    source = Path(settings.source) if settings.source else None
    declaration = settings.dataset_declaration()
    if folder := declaration.missing_images(source):
        notes.print(
            f"{declaration.name}: its images are a separate download and not there, so its phrases "
            f"stay ungrounded; to ground them, put the images into {folder} and build again",
            style="yellow",
        )


def _run_flows(runs: Sequence[BuildSettings]) -> list[DatasetSummary]:
    """One flow run after the other, on the user's Prefect server or a temporary one."""
    from flows.runtime.prefect_defaults import quiet_prefect

    quiet_prefect(notes.print)  # before Prefect is imported
    from flows.runtime.prefect_server import open_server
    from flows.runtime.signals import end_when_lost

    end_when_lost(open_server(notes.print))
    from flows.build_grounded_reports import build_grounded_reports

    return [build_grounded_reports(settings) for settings in runs]


def print_result(store: str, summaries: Sequence[DatasetSummary], *, as_json: bool) -> None:
    """Print the summary of the runs, the path of the store and that of its page."""
    from flows.cli.json_output import print_json
    from flows.cli.tables import print_summaries

    computed = sum(summary.computed_shards for summary in summaries)
    stages = [stage for summary in summaries for stage in summary.stages]
    shards = sum(stage.shards for stage in stages)
    rejected = sum(stage.rejects.total() for stage in stages)
    if as_json:
        page, fault = _gallery(store)
        if fault:
            notes.print(f"gallery: not written, {fault}")
        counts = {"computed_shards": computed, "shards": shards, "rejected_records": rejected}
        datasets = [summary.as_json() for summary in summaries]
        print_json({"datasets": datasets} | counts | {"store": store, "gallery": page})
        return
    print_summaries(summaries, out)
    if computed:
        out.print(f"{computed} of {shards} shards computed; {rejected:,} records rejected")
    else:
        out.print(f"nothing to do: all {shards} shards are in the store")
    out.print(f"store:   {store}", soft_wrap=True)
    page, fault = _gallery(store)
    shown = f"not written, {fault}" if fault else page or "only for a store on this machine"
    out.print(f"gallery: {shown}", soft_wrap=True)


def _gallery(store: str) -> tuple[str | None, str]:
    """Write the page of a store: its path, if there can be one, and why it was not written."""
    from dashboard.gallery import write_gallery
    from storage.catalogue import CatalogueError
    from storage.store import Store, StoreError

    try:
        page = write_gallery(Store(store))
    except (CatalogueError, StoreError) as fault:
        return None, str(fault)
    return str(page) if page else None, ""
