"""A detector of another project, in a process of its own: `docs/worker-engines.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engines.registry import EngineContext, EngineDeclaration
from tasks.engines.worker.declared import DeclaredDetectorSettings

if TYPE_CHECKING:
    from tasks.engines.worker.detector import WorkerDetector


def _make(settings: DeclaredDetectorSettings, _: EngineContext) -> WorkerDetector:
    from tasks.engines.worker.detector import WorkerDetector
    from tasks.engines.worker.pool import WorkerPool
    from tasks.engines.worker.prepared import worker_fingerprint

    command = settings.command()
    made_by = worker_fingerprint(command, settings.version, dict(settings.options))
    pool = WorkerPool(command, settings.limits, settings.devices)
    return WorkerDetector(
        pool, settings.vocabulary(), made_by, settings.selection, settings.batch_size
    )


ENGINE = EngineDeclaration(DeclaredDetectorSettings, _make)
