"""The settings that every engine with a worker has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from tasks.engines.registry import EngineSettings
from tasks.engines.worker.process import Limits
from tasks.engines.worker.selection import Policy, Selection


def _existing(path: Path) -> Path:
    found = path.expanduser().absolute()
    if not found.exists():
        raise ValueError(f"there is no {found}")
    return found


ExistingPath = Annotated[Path, BeforeValidator(lambda given: _existing(Path(given)))]
"""A file or folder that is there; `~` is the user's own folder, the path is made absolute."""


def _pairs(given: object) -> object:
    return tuple(sorted(given.items())) if isinstance(given, Mapping) else given


Pairs = Annotated[tuple[tuple[str, float], ...], BeforeValidator(_pairs)]
"""Numbers by name, `{pneumothorax: 0.2}`; pairs, because settings must be hashable."""


class WorkerSettings(EngineSettings):
    """Where the engine's environment is, and what its workers may use."""

    python: ExistingPath = Field(description="the interpreter of the engine's own environment")
    gpus: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(), description="CUDA devices, one worker on each; none: one worker on the CPU"
    )
    request_s: float = Field(
        default=1800.0, gt=0, description="seconds after which a worker that does not answer ends"
    )
    memory_gib: float | None = Field(
        default=None, gt=0, description="memory (RAM) of a worker, after which it is ended"
    )

    @property
    def limits(self) -> Limits:
        """When a worker is ended."""
        size = None if self.memory_gib is None else int(self.memory_gib * 2**30)
        return Limits(request_s=self.request_s, memory_bytes=size)

    @property
    def devices(self) -> tuple[int | None, ...]:
        """The CUDA device of each worker; None for the CPU."""
        return self.gpus or (None,)

    def told(self, *names: str) -> dict[str, Any]:
        """Some of the settings as JSON values, for the worker and for the fingerprint."""
        return self.model_dump(mode="json", include=set(names))


class DetectorSettings(WorkerSettings):
    """Which boxes of a worker are kept, and how many radiographs it takes at a time."""

    threshold: float = Field(default=0.1, ge=0, le=1, description="least score of a box")
    thresholds: Pairs = Field(
        default=(), description="that of single targets, `{pneumothorax: 0.2}`"
    )
    policy: Policy = Field(
        default="threshold",
        description="`threshold`: no box below it is kept; `paper`: where none passes, the best "
        "one is kept and marked `forced`, as by the paper's code",
    )
    batch_size: int = Field(default=4, ge=1, description="radiographs at a time")

    @property
    def selection(self) -> Selection:
        """Which boxes are kept."""
        return Selection(self.threshold, dict(self.thresholds), self.policy)
