"""`build-grounded-reports`: studies in, visually grounded reports out.

    studies → clean → extract → filter → detect | segment → assemble → grounded reports

The stages, what each reads and its engine stand in one table, `tasks.pipeline.stages`. A task is
one stage on one shard; it starts when the shard's own inputs are there and its engine is free. The
store holds the truth about what is done: a shard that it already has is skipped, whatever Prefect
remembers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, tags, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.tasks import Task

from dashboard.gallery import write_gallery
from flows.runtime.orphaned_runs import claim_run
from flows.runtime.prefect_defaults import cpu_shards
from flows.runtime.progress import RunProgress
from storage.catalogue import CatalogueError, write_catalogue
from storage.duplicates import find_duplicates
from storage.plans import write_plan
from storage.shards import Part, read_shard
from storage.snapshots import read_snapshot
from storage.store import Store, StoreError
from storage.sweeping import sweep
from storage.switching import renewal
from storage.tables import ShardError
from tasks.engines.cancellation import cancel_waits_on_error
from tasks.engines.llm.chat.settings import BatchSettings
from tasks.engines.llm.settings import LlmSettings
from tasks.pipeline.last_settings import keep_settings
from tasks.pipeline.release_note import release_note, write_note
from tasks.pipeline.run_summary import DatasetSummary, summarize
from tasks.pipeline.runner import ShardResult, run_stage
from tasks.pipeline.schedule import run_shards
from tasks.pipeline.settings import BuildSettings
from tasks.pipeline.stages import pipeline
from tasks.pipeline.taxonomies import remember

NAME = "build-grounded-reports"


def _run_name() -> str:
    """The data set, the engines of the text, those of the images: `openi · rules/… · atlas/…`."""
    settings = BuildSettings.model_validate(flow_run.parameters["settings"])
    text = [_engine_name(settings, step) for step in ("cleaner", "extractor", "filter")]
    images = [_engine_name(settings, step) for step in ("detector", "segmenter")]
    return " · ".join(
        ["/".join(dict.fromkeys(part)) for part in ([settings.dataset], text, images)]
    )


def _engine_name(settings: BuildSettings, step: str) -> str:
    engine = "+".join(member.engine for member in getattr(settings, step).members)
    llm = settings.llm
    if engine != "llm" or llm is None:
        return engine
    chat = llm.server or llm.vllm or llm.batch
    return f"{engine} {chat.model.rsplit('/', maxsplit=1)[-1]}" if chat else engine


@flow(name=NAME, flow_run_name=_run_name, validate_parameters=True)
def build_grounded_reports(settings: BuildSettings) -> DatasetSummary:
    """Build the grounded reports of one dataset; what the store already holds is skipped."""
    claim_run(UUID(flow_run.get_id()), NAME)
    with tags(settings.dataset), RunProgress(settings.dataset, pipeline(settings)) as progress:
        with renewal(pipeline(settings).store, settings.dataset, settings.keep_versions) as store:
            run = _Run(settings, store, progress)
            write_plan(store, pipeline(settings).plan)
            remember(store, pipeline(settings).taxonomy)
            keep_settings(store, settings)
            if settings.llm and settings.llm.batch:
                run.stages("ingest")
                run.require_batch_answers(settings.llm, settings.llm.batch)
            run.stages()
            _tell_changes(store, settings.dataset)
            sweep(store, pipeline(settings).plan)

        _refresh_views(pipeline(settings).store)
        summary = summarize(settings.dataset, run.results, progress.seconds)
        return progress.finish(_with_duplicates(summary, pipeline(settings).store))


def _tell_changes(store: Store, dataset: str) -> None:
    """Leave what is new in the next version of a data set as a table and an artifact."""
    if store.base is store:  # its first version
        return
    note = release_note(store.base, store, dataset)
    if note.changes:
        write_note(store, note, read_snapshot(store.base, dataset).number + 1)
        create_markdown_artifact(
            note.markdown(),
            key=f"{dataset}-changes",
            description=f"Tags and groundings of {dataset} that differ from the version before.",
        )


def _refresh_views(store: Store) -> None:
    """Renew the catalogue and the gallery; none of the run's work is lost where they cannot be."""
    for view in (write_catalogue, write_gallery):
        try:
            view(store)
        except (CatalogueError, StoreError) as error:  # such as another data set's damaged shard
            get_run_logger().warning(f"{view.__name__}: {error}")


def _with_duplicates(summary: DatasetSummary, store: Store) -> DatasetSummary:
    try:
        return replace(summary, duplicates=find_duplicates(store, summary.dataset))
    except (ShardError, StoreError) as error:
        get_run_logger().warning(f"find_duplicates: {error}")
        return summary


def _is_transient(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, StoreError) and error.transient


@task(
    task_run_name="{stage} {part}",
    retries=3,
    retry_delay_seconds=[2, 10, 60],
    retry_condition_fn=_is_transient,
    cache_policy=NO_CACHE,
)
def run_shard(
    settings: BuildSettings,
    store: Store,
    stage: str,
    part: Part,
    upstream: Mapping[str, ShardResult],
) -> ShardResult:
    """One stage on one shard."""
    result = run_stage(store, pipeline(settings).stages[stage], part, upstream)
    get_run_logger().info(str(result))
    return result


class _Run:
    """One run over all parts, each shard a task; `results` are those of the shards so far."""

    def __init__(self, settings: BuildSettings, store: Store, progress: RunProgress) -> None:
        self._settings = settings
        self._store = store
        self._progress = progress
        self.results: list[ShardResult] = []

    def stages(self, *names: str) -> None:
        """Run the named stages, or all that remain, on every part.

        The first shard that fails ends the run: the others stop waiting for a model.
        """
        plan = pipeline(self._settings)
        stages = [stage for stage in plan.stages.values() if not names or stage.name in names]
        with cancel_waits_on_error():
            for result in run_shards(stages, plan.parts, self._submit, cpu_shards(), self.results):
                self.results.append(result)
                self._progress.advance(result)

    def _submit(
        self, stage: str, part: Part, upstream: Mapping[str, ShardResult]
    ) -> PrefectFuture[ShardResult]:
        return run_shard.submit(self._settings, self._store, stage, part, upstream)

    def require_batch_answers(self, llm: LlmSettings, batch: BatchSettings) -> None:
        """End the run here if requests of the ingested studies have no answer in batch files."""
        from tasks.pipeline.batch_rounds import require_answers

        files = [result.manifest.outputs["studies"] for result in self.results]
        shards = [read_shard(self._store, file) for file in files]
        require_answers(shards, self._settings, llm, batch)
