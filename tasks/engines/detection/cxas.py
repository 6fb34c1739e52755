"""CXAS (Seibold et al. 2023), in a process of its own environment: boxes of anatomy on films."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tasks.engines.registry import EngineContext, EngineDeclaration
from tasks.engines.worker.settings import DetectorSettings, ExistingPath

if TYPE_CHECKING:
    from tasks.engines.worker.detector import WorkerDetector

VERSION = "1"


class Settings(DetectorSettings):
    """`detector: {engine: cxas, python: …, weights: …}`."""

    weights: ExistingPath = Field(description="its checkpoint, UNet_ResNet50_default.pth")


def _make(settings: Settings, _: EngineContext) -> WorkerDetector:
    from tasks.engines.worker.detector import WorkerDetector
    from tasks.engines.worker.pool import WorkerPool
    from tasks.engines.worker.prepared import SCRIPTS, worker_command, worker_fingerprint
    from tasks.engines.worker.vocabulary import TARGETS, Classes, read_classes

    command = worker_command(
        settings,
        SCRIPTS / "cxas_worker.py",
        packages=("cxas", "torch"),
        weights=(settings.weights,),
        paths={"weights": settings.weights},
    )
    return WorkerDetector(
        WorkerPool(command, settings.limits, settings.devices),
        Classes(read_classes(TARGETS / "cxas.yaml")),
        worker_fingerprint(command, VERSION, {}),
        settings.selection,
        settings.batch_size,
    )


ENGINE = EngineDeclaration(Settings, _make)
