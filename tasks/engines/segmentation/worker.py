"""A segmenter of another project, in a process of its own: `docs/worker-engines.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engines.registry import EngineContext, EngineDeclaration
from tasks.engines.worker.declared import DeclaredSettings

if TYPE_CHECKING:
    from tasks.engines.worker.segmenter import WorkerSegmenter


def _make(settings: DeclaredSettings, _: EngineContext) -> WorkerSegmenter:
    from tasks.engines.worker.pool import WorkerPool
    from tasks.engines.worker.prepared import worker_fingerprint
    from tasks.engines.worker.segmenter import WorkerSegmenter

    command = settings.command()
    made_by = worker_fingerprint(command, settings.version, dict(settings.options))
    pool = WorkerPool(command, settings.limits, settings.devices)
    return WorkerSegmenter(pool, settings.vocabulary(), made_by)


ENGINE = EngineDeclaration(DeclaredSettings, _make)
