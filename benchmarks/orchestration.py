"""Overhead of orchestration and storage over the engines, on the whole demo.

The engines alone: every step of every part is called as a plain function, with tables in memory.
The whole: the Prefect flow on an empty store, timed inside the flow; the time to start Prefect is
reported separately. Each runs in a new process, one after another, on the same inputs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

os.environ.setdefault(
    "PREFECT_TASK_RUNNER_THREAD_POOL_MAX_WORKERS", "1"
)  # one shard at a time, as the engines alone

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.targets import judge
from flows.runtime.prefect_defaults import quiet_prefect
from storage.inputs import fetch
from storage.rejects import rejects_table
from tasks.pipeline.settings import BuildSettings, required_inputs
from tasks.pipeline.stages import pipeline

DATASETS = ("openi", "showcase")


def main() -> int:
    """Measure both and print the table; 1 if a target is missed."""
    table = Table(title="The demo: engines, and the whole flow", title_justify="left")
    for name in ("dataset", "engines s", "flow s", "orchestration + storage s", "start + end s"):
        table.add_column(name, justify="left" if name == "dataset" else "right")
    fresh = ProcessPoolExecutor(
        max_workers=1, mp_context=get_context("spawn"), max_tasks_per_child=1
    )
    with fresh, tempfile.TemporaryDirectory() as folder:
        settings = [BuildSettings(dataset=name, store=f"{folder}/store") for name in DATASETS]
        for chosen in settings:
            fetch(required_inputs(chosen))
        engines = list(fresh.map(_engines_alone, settings))
        flows = list(fresh.map(_flow, settings))
    for name, alone, (inside, outside) in zip(DATASETS, engines, flows, strict=True):
        cells = (alone, inside, inside - alone, outside - inside)
        table.add_row(name, *(f"{seconds:.1f}" for seconds in cells))
    Console().print(table)
    share = sum(inside for inside, _ in flows) / sum(engines) - 1
    if share < 0:  # the machine had less time for the engines alone than for the flow
        return judge("orchestration", {})
    figure = "seconds of orchestration and storage, share of the engines'"
    return judge("orchestration", {figure: share})


def _engines_alone(settings: BuildSettings) -> float:
    plan = pipeline(settings)
    started = time.perf_counter()
    for part in plan.parts:
        made: dict[tuple[str, str], pa.Table] = {}
        for stage in plan.stages.values():
            output = stage.step(part, *(made[key] for key in stage.inputs))
            made[stage.name, stage.table] = output.rows
            made[stage.name, "rejects"] = rejects_table(part, stage.name, output.rejects)
    return time.perf_counter() - started


def _flow(settings: BuildSettings) -> tuple[float, float]:
    """Seconds from the first stage to the summary, and of the whole call."""
    quiet_prefect()
    from flows.build_grounded_reports import build_grounded_reports

    started = time.perf_counter()
    summary = build_grounded_reports(settings)
    return summary.wall_seconds or 0.0, time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
