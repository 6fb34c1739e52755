"""Progress of a run: bars in a terminal, artifacts in Prefect's pages."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dashboard.gallery import FILE as GALLERY
from tasks.pipeline.run_summary import DatasetSummary
from tasks.pipeline.runner import ShardResult
from tasks.pipeline.stages import Pipeline

_ARTIFACT_STEPS = 10
"""How often the artifact is renewed from start to end; each time is a request to the server."""


class RunProgress:
    """Progress of one flow run over one dataset, a bar for each stage."""

    def __init__(self, dataset: str, plan: Pipeline) -> None:
        self._dataset = dataset
        self._store = plan.store
        self._total = len(plan.parts) * len(plan.stages)
        self._done = 0
        self._skipped = Counter[str]()
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.fields[dataset]:<10}{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("shards"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,  # a log gets the lines of the tasks instead
        )
        self._bar_of = {
            stage: self._bars.add_task(
                stage, start=False, total=len(plan.parts), dataset=dataset, note=""
            )
            for stage in plan.stages
        }

    @property
    def seconds(self) -> float:
        """Seconds since the first shard could start."""
        return time.perf_counter() - self._started

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._artifact = create_progress_artifact(
            0.0,
            key=f"{self._dataset}-progress",
            description=f"Shards of {self._dataset} that are done, of all stages together.",
        )
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def advance(self, result: ShardResult) -> None:
        """Count a shard that has ended."""
        stage = result.manifest.stage
        self._skipped[stage] += result.skipped
        skipped = self._skipped[stage]
        bar = self._bar_of[stage]
        self._bars.start_task(bar)
        self._bars.update(bar, advance=1, note=f"{skipped} already done" if skipped else "")
        step = _ARTIFACT_STEPS * self._done // self._total
        self._done += 1
        if _ARTIFACT_STEPS * self._done // self._total > step:
            update_progress_artifact(self._artifact, 100.0 * self._done / self._total)  # type: ignore[arg-type]

    def finish(self, summary: DatasetSummary) -> DatasetSummary:
        """Leave the summary as a table artifact and return it."""
        by_rules = [said for stage in summary.stages if (said := stage.in_the_models_place())]
        rows = [
            {
                "stage": stage.stage,
                "unit": stage.unit,
                "in": stage.rows_in,
                "out": stage.rows_out,
                "rejected": stage.rejects.total(),
                "rows written": stage.written,
                "by the rules for the model": stage.usage["units_by_rules"],
                "seconds": round(stage.seconds, 1),
                "skipped shards": f"{stage.skipped}/{stage.shards}",
            }
            for stage in summary.stages
        ]
        create_table_artifact(
            rows,
            key=f"{self._dataset}-stages",
            description=f"What each stage read, wrote and rejected of {self._dataset}, counted in "
            f"its unit. The store: `{self._store.root}`." + "".join(f" **{s}.**" for s in by_rules),
        )
        if self._store.is_local:
            page = Path(self._store.location(GALLERY))
            create_link_artifact(
                page.as_uri(),
                link_text="gallery of grounded reports",
                key=f"{self._dataset}-gallery",
                description="Reports with their regions, a page on the machine that ran this: "
                f"`{page}`.",
            )
        return summary
