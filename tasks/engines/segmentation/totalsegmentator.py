"""TotalSegmentator v2 (Wasserthal et al. 2023), in a process of its own environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tasks.engines.registry import EngineContext, EngineDeclaration
from tasks.engines.worker.settings import ExistingPath, WorkerSettings

if TYPE_CHECKING:
    from tasks.engines.worker.segmenter import WorkerSegmenter
    from taxonomy.targets import Taxonomy

VERSION = "1"


class Settings(WorkerSettings):
    """`segmenter: {engine: totalsegmentator, python: …, weights: …}`."""

    weights: ExistingPath = Field(description="the folder that holds the folders `Dataset…`")
    fast: bool = Field(default=False, description="the model of 3 mm in place of that of 1.5 mm")


def classes(taxonomy: Taxonomy) -> dict[str, tuple[str, ...]]:
    """The classes of each target: one of `total`, several together, or those of another task."""
    from tasks.engines.worker.vocabulary import TARGETS, read_classes

    own = {t.name: (t.totalsegmentator,) for t in taxonomy.targets.values() if t.totalsegmentator}
    return own | read_classes(TARGETS / "totalsegmentator.yaml")


def _make(settings: Settings, context: EngineContext) -> WorkerSegmenter:
    from tasks.engines.worker.pool import WorkerPool
    from tasks.engines.worker.prepared import SCRIPTS, worker_command, worker_fingerprint
    from tasks.engines.worker.segmenter import WorkerSegmenter
    from tasks.engines.worker.vocabulary import Classes

    options = settings.told("fast")
    command = worker_command(
        settings,
        SCRIPTS / "totalsegmentator_worker.py",
        packages=("TotalSegmentator", "nnunetv2", "torch"),
        weights=(settings.weights,),
        options=options,
        paths={"weights": settings.weights},
    )
    return WorkerSegmenter(
        WorkerPool(command, settings.limits, settings.devices),
        Classes(classes(context.taxonomy)),
        worker_fingerprint(command, VERSION, options),
    )


ENGINE = EngineDeclaration(Settings, _make)
