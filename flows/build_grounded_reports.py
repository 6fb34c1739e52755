"""`build-grounded-reports`: studies in, visually grounded reports out.

    studies → clean → extract → filter → localize (boxes | masks) → assemble → grounded reports

A task is one stage on one shard. The store holds the truth about what is done: a shard that it
already has is skipped, whatever Prefect remembers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import flow, get_run_logger, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import as_completed
from prefect.tasks import Task

from flows.runtime.progress import RunProgress
from storage.catalogue import CatalogueError, write_catalogue
from storage.shards import Part, read_shard
from storage.store import Store, StoreError
from tasks.engines.cancellation import waits_end_together
from tasks.pipeline.run_summary import DatasetAccount, account
from tasks.pipeline.runner import ShardResult, run_stage
from tasks.pipeline.settings import BuildSettings
from tasks.pipeline.stages import pipeline

StageResults = Mapping[Part, ShardResult]


@flow(name="build-grounded-reports", flow_run_name="{settings.dataset}", validate_parameters=True)
def build_grounded_reports(settings: BuildSettings) -> DatasetAccount:
    """Build the grounded reports of one dataset; what the store already holds is skipped."""
    with tags(settings.dataset), RunProgress(settings.dataset, pipeline(settings)) as progress:
        run = _Run(settings, progress)
        studies = run.stage("ingest")
        run.require_batch_answers(studies)
        reports = run.stage("clean", studies)
        phrases = run.stage("extract", reports)
        positives = run.stage("filter", reports, phrases)
        boxes = run.stage("detect", studies, positives)
        masks = run.stage("segment", studies, positives)
        grounded = run.stage("assemble", studies, reports, phrases, positives, boxes, masks)

        _refresh_catalogue(pipeline(settings).store)
        stages = (studies, reports, phrases, positives, boxes, masks, grounded)
        return progress.finish(account(settings.dataset, stages, progress.seconds))


def _refresh_catalogue(store: Store) -> None:
    try:
        write_catalogue(store)
    except CatalogueError as error:  # another dataset's shard: none of this run's work is lost
        get_run_logger().warning(f"the catalogue was left as it is: {error}")


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
    settings: BuildSettings, stage: str, part: Part, upstream: Mapping[str, ShardResult]
) -> ShardResult:
    """One stage on one shard."""
    plan = pipeline(settings)
    result = run_stage(plan.store, plan.stages[stage], part, upstream)
    get_run_logger().info(str(result))
    return result


class _Run:
    """Runs stages over all parts, one after the other, each shard a task."""

    def __init__(self, settings: BuildSettings, progress: RunProgress) -> None:
        self._settings = settings
        self._progress = progress

    def stage(self, name: str, *upstream: StageResults) -> StageResults:
        """Run a stage on every part; ends when all its shards are done."""
        parts = pipeline(self._settings).parts
        with self._progress.stage(name, len(parts)) as done, waits_end_together():
            futures = [
                run_shard.submit(self._settings, name, part, _of_part(part, upstream))
                for part in parts
            ]
            results = [done(future.result()) for future in as_completed(futures)]
        return {result.manifest.part: result for result in results}

    def require_batch_answers(self, studies: StageResults) -> None:
        """End the run here if its model is asked by batch files and some were never asked."""
        llm = self._settings.llm
        if llm is None or llm.batch is None:
            return
        from tasks.pipeline.batch_rounds import require_answers

        store = pipeline(self._settings).store
        files = (result.manifest.outputs["studies"] for result in studies.values())
        shards = [read_shard(store, file) for file in files]
        require_answers(shards, self._settings, llm, llm.batch)


def _of_part(part: Part, upstream: tuple[StageResults, ...]) -> dict[str, ShardResult]:
    results = (stage[part] for stage in upstream)
    return {result.manifest.stage: result for result in results}
