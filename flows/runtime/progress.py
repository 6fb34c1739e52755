"""How a run shows itself: bars in a terminal, artifacts in Prefect's pages, lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tasks.pipeline.run_summary import DatasetAccount
from tasks.pipeline.runner import ShardResult
from tasks.pipeline.stages import Pipeline


class RunProgress:
    """Progress of one flow run over one dataset."""

    def __init__(self, dataset: str, plan: Pipeline) -> None:
        self._dataset = dataset
        self._total = len(plan.parts) * len(plan.stages)
        self._done = 0
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

    @property
    def seconds(self) -> float:
        """Seconds since the first stage could start."""
        return time.perf_counter() - self._started

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._artifact = create_progress_artifact(0.0, key=f"{self._dataset}-progress")
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    @contextmanager
    def stage(self, name: str, shards: int) -> Iterator[Callable[[ShardResult], ShardResult]]:
        """A bar for a stage; the function given advances it by one finished shard."""
        bar = self._bars.add_task(name, total=shards, dataset=self._dataset, note="")
        skipped = 0

        def done(result: ShardResult) -> ShardResult:
            nonlocal skipped
            skipped += result.skipped
            self._done += 1
            note = f"{skipped} already done" if skipped else ""
            self._bars.update(bar, advance=1, note=note)
            return result

        yield done
        update_progress_artifact(self._artifact, 100.0 * self._done / self._total)  # type: ignore[arg-type]

    def finish(self, account: DatasetAccount) -> DatasetAccount:
        """Leave the account as a table artifact and hand it on."""
        rows = [
            {
                "stage": stage.stage,
                "unit": stage.unit,
                "in": stage.rows_in,
                "out": stage.rows_out,
                "set aside": stage.rejects.total(),
                "rows written": stage.written,
                "seconds": round(stage.seconds, 1),
                "skipped shards": f"{stage.skipped}/{stage.shards}",
            }
            for stage in account.stages
        ]
        create_table_artifact(rows, key=f"{self._dataset}-stages")
        return account
