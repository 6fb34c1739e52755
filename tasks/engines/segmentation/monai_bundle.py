"""MONAI's whole-body CT bundle, in a process of its own environment."""

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
    """`segmenter: {engine: monai_bundle, python: …, bundle: …}`."""

    bundle: ExistingPath = Field(
        description="the folder wholeBody_ct_segmentation, its `models` included"
    )
    highres: bool = Field(default=True, description="the model of 1.5 mm; else that of 3 mm")


def classes(taxonomy: Taxonomy) -> dict[str, tuple[str, ...]]:
    """The classes of each target, less what only a later TotalSegmentator has."""
    from tasks.engines.segmentation import totalsegmentator
    from tasks.engines.worker.vocabulary import TARGETS, read_classes

    shared = totalsegmentator.classes(taxonomy)
    of_total = {
        target: names for target, names in shared.items() if not any("/" in name for name in names)
    }
    return of_total | read_classes(TARGETS / "monai_bundle.yaml")


def _make(settings: Settings, context: EngineContext) -> WorkerSegmenter:
    from tasks.engines.worker.pool import WorkerPool
    from tasks.engines.worker.prepared import SCRIPTS, worker_command, worker_fingerprint
    from tasks.engines.worker.segmenter import WorkerSegmenter
    from tasks.engines.worker.vocabulary import Classes

    options = settings.told("highres")
    command = worker_command(
        settings,
        SCRIPTS / "monai_bundle_worker.py",
        packages=("monai", "torch"),
        weights=(settings.bundle,),
        options=options,
        paths={"bundle": settings.bundle},
    )
    return WorkerSegmenter(
        WorkerPool(command, settings.limits, settings.devices),
        Classes(classes(context.taxonomy)),
        worker_fingerprint(command, VERSION, options),
    )


ENGINE = EngineDeclaration(Settings, _make)
