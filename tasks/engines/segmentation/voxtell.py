"""VoxTell, in a process of its own environment: masks on CT for the report's own words.

The trained weights have not been run with it here. Its checkpoint is a pickle: use only a file of
a source that you trust, and read the licence of the weights first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from tasks.engines.registry import EngineContext, EngineDeclaration
from tasks.engines.worker.settings import ExistingPath, WorkerSettings

if TYPE_CHECKING:
    from tasks.engines.worker.segmenter import WorkerSegmenter

VERSION = "1"


class Settings(WorkerSettings):
    """`segmenter: {engine: voxtell, python: …, weights: …, text_model: …}`."""

    weights: ExistingPath = Field(
        description="the folder with plans.json and fold_0/checkpoint_final.pth"
    )
    text_model: ExistingPath | None = Field(
        default=None, description="the folder of Qwen3-Embedding-4B (8 GB of a GPU, 16 GB of RAM)"
    )
    embedding_bank: ExistingPath | None = Field(
        default=None, description="embeddings of prompts (.npz), which need no text model"
    )
    prompts_at_a_time: int = Field(default=16, ge=1, description="prompts of one pass")

    @model_validator(mode="after")
    def _some_embedding(self) -> Settings:
        if self.text_model is None and self.embedding_bank is None:
            raise ValueError("name text_model or embedding_bank: prompts are asked as embeddings")
        return self


def _make(settings: Settings, _: EngineContext) -> WorkerSegmenter:
    from tasks.engines.worker.pool import WorkerPool
    from tasks.engines.worker.prepared import SCRIPTS, worker_command, worker_fingerprint
    from tasks.engines.worker.segmenter import WorkerSegmenter
    from tasks.engines.worker.vocabulary import FreeText

    named = {name: getattr(settings, name) for name in ("weights", "text_model", "embedding_bank")}
    paths = {name: path for name, path in named.items() if path is not None}
    command = worker_command(
        settings,
        SCRIPTS / "voxtell_worker.py",
        packages=("voxtell", "nnunetv2", "torch", "transformers"),
        weights=tuple(paths.values()),
        options=settings.told("prompts_at_a_time"),
        paths=paths,
    )
    return WorkerSegmenter(
        WorkerPool(command, settings.limits, settings.devices),
        FreeText(),
        worker_fingerprint(command, VERSION, {}),
    )


ENGINE = EngineDeclaration(Settings, _make)
