"""DINO with EVA-02 in detrex, in a process of its own environment: the paper's boxes on films."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tasks.engines.registry import EngineContext, EngineDeclaration
from tasks.engines.worker.settings import DetectorSettings, ExistingPath

if TYPE_CHECKING:
    from tasks.engines.worker.detector import WorkerDetector

VERSION = "1"

VINDR_CXR = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung cavity",
    "Lung cyst",
    "Lung Opacity",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
)
"""The local labels of VinDr-CXR (Nguyen et al. 2022) but for `Other lesion`, in the order of the
classes of the paper's detector."""


class Settings(DetectorSettings):
    """`detector: {engine: detrex, python: …, config: …, weights: …}`."""

    config: ExistingPath = Field(description="the detector's lazy configuration, a Python file")
    weights: ExistingPath = Field(description="its checkpoint, model_final.pth")
    overrides: tuple[str, ...] = Field(
        default=("model.select_box_nums_for_evaluation=300",),
        description="settings of the configuration, `a.b=c`, as on detrex's command line",
    )
    classes: tuple[str, ...] = Field(
        default=VINDR_CXR, description="names of its classes, by which the taxonomy knows them"
    )
    side: int = Field(default=1536, ge=32, description="pixels of the longer side of a film")
    equalize: bool = Field(default=True, description="equalize the histogram, as in its training")


def _make(settings: Settings, context: EngineContext) -> WorkerDetector:
    from tasks.engines.worker.detector import WorkerDetector
    from tasks.engines.worker.pool import WorkerPool
    from tasks.engines.worker.prepared import SCRIPTS, worker_command, worker_fingerprint
    from tasks.engines.worker.vocabulary import Classes

    options = settings.told("overrides", "classes", "side", "equalize")
    command = worker_command(
        settings,
        SCRIPTS / "detrex_worker.py",
        packages=("detectron2", "detrex", "torch"),
        weights=(settings.weights, settings.config),
        options=options,
        paths={"config": settings.config, "weights": settings.weights},
    )
    targets = context.taxonomy.targets.values()
    known = {t.name: (t.vindr,) for t in targets if t.vindr in settings.classes and t.vindr}
    return WorkerDetector(
        WorkerPool(command, settings.limits, settings.devices),
        Classes(known),
        worker_fingerprint(command, VERSION, options),
        settings.selection,
        settings.batch_size,
    )


ENGINE = EngineDeclaration(Settings, _make)
