"""SAT-Pro (Zhao et al. 2023), in a process of its own environment: the paper's masks on CT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tasks.engines.registry import EngineContext, EngineDeclaration
from tasks.engines.worker.settings import ExistingPath, WorkerSettings

if TYPE_CHECKING:
    from tasks.engines.worker.segmenter import WorkerSegmenter

VERSION = "1"

Voxels = Annotated[int, Field(ge=32, multiple_of=32)]


class Settings(WorkerSettings):
    """`segmenter: {engine: sat, python: …, source: …, weights: …, text_encoder: …, …}`."""

    source: ExistingPath = Field(description="a checkout of SAT's repository")
    weights: ExistingPath = Field(description="the network's checkpoint, SAT_Pro.pth")
    text_encoder: ExistingPath = Field(description="its text encoder's, text_encoder.pth")
    text_model: ExistingPath = Field(
        description="the folder of BioLORD-2023-C, the language model that the encoder starts from"
    )
    backbone: Literal["UNET", "UNET-L"] = Field(
        default="UNET-L", description="UNET-L of SAT-Pro, UNET of SAT-Nano"
    )
    window: tuple[Voxels, Voxels, Voxels] = Field(
        default=(288, 288, 96), description="voxels of 1 × 1 × 3 mm; smaller ones need less memory"
    )
    queries: int = Field(
        default=32, ge=1, description="prompts at a time; each takes a volume of floats in memory"
    )


def _make(settings: Settings, context: EngineContext) -> WorkerSegmenter:
    from tasks.engines.worker.pool import WorkerPool
    from tasks.engines.worker.prepared import SCRIPTS, worker_command, worker_fingerprint
    from tasks.engines.worker.segmenter import WorkerSegmenter
    from tasks.engines.worker.vocabulary import Classes

    options = settings.told("backbone", "window")
    paths = ("source", "weights", "text_encoder", "text_model")
    command = worker_command(
        settings,
        SCRIPTS / "sat_worker.py",
        packages=("monai", "torch", "transformers"),
        weights=(settings.weights, settings.text_encoder, settings.source / "model"),
        options={**options, **settings.told("queries")},
        paths={name: getattr(settings, name) for name in paths},
    )
    targets = context.taxonomy.targets.values()
    return WorkerSegmenter(
        WorkerPool(command, settings.limits, settings.devices),
        Classes({target.name: (target.sat,) for target in targets if target.sat}),
        worker_fingerprint(command, VERSION, options),
    )


ENGINE = EngineDeclaration(Settings, _make)
