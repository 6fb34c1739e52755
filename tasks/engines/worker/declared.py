"""Engines that another project declares: a script, an interpreter, the targets it knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from tasks.engines.worker.prepared import worker_command
from tasks.engines.worker.process import WorkerCommand
from tasks.engines.worker.settings import DetectorSettings, ExistingPath, WorkerSettings
from tasks.engines.worker.vocabulary import Classes, FreeText, Vocabulary, read_classes


def _options(given: object) -> object:
    return tuple(sorted(given.items())) if isinstance(given, Mapping) else given


Options = Annotated[tuple[tuple[str, bool | int | float | str], ...], BeforeValidator(_options)]
"""Settings that the script alone knows, `{window: 96}`; pairs, for settings must be hashable."""


class DeclaredSettings(WorkerSettings):
    """A worker of another project; see `docs/worker-engines.md`."""

    name: str = Field(pattern=r"^[\w.-]+$", description="of the engine, for what it makes")
    version: str = Field(default="1", description="raised when its answers change")
    script: ExistingPath = Field(description="what the interpreter runs")
    targets: ExistingPath | None = Field(
        default=None,
        description="YAML file of its classes by target; none: it is asked in words",
    )
    weights: tuple[ExistingPath, ...] = Field(
        default=(), description="files and folders whose content decides its answers"
    )
    packages: tuple[str, ...] = Field(
        default=(), description="distributions whose versions decide its answers"
    )
    options: Options = Field(default=(), description="settings that the script alone knows")

    def command(self) -> WorkerCommand:
        """How its worker is started."""
        told = self.model_copy(update={"engine": self.name})
        paths = {f"weights_{i}": path for i, path in enumerate(self.weights)}
        options = dict(self.options)
        return worker_command(told, self.script, self.packages, self.weights, options, paths)

    def vocabulary(self) -> Vocabulary:
        """What it knows."""
        return FreeText() if self.targets is None else Classes(read_classes(Path(self.targets)))


class DeclaredDetectorSettings(DeclaredSettings, DetectorSettings):
    """A worker of another project that reads radiographs."""
