"""From settings to a worker's command and to the fingerprint of what it makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.engines.protocols import Fingerprint
from tasks.engines.worker.environment import package_versions, weights_digest
from tasks.engines.worker.process import WorkerCommand
from tasks.engines.worker.settings import WorkerSettings

SCRIPTS = Path(__file__).with_name("scripts")
"""The folder of the scripts that run in the engines' own environments."""


def worker_command(
    settings: WorkerSettings,
    script: Path,
    packages: Sequence[str],
    weights: Sequence[Path] = (),
    options: Mapping[str, Any] | None = None,
    paths: Mapping[str, Path] | None = None,
) -> WorkerCommand:
    """How the engine's worker is started.

    Args:
        settings: which interpreter.
        script: what it runs.
        packages: distributions whose versions decide the output.
        weights: files and folders whose content decides the output.
        options: settings that decide the output, as JSON values.
        paths: further settings of the script, which name places on this machine alone.

    Raises:
        EngineChoiceError: if the interpreter cannot be run, or weights are not there.
    """
    places = {name: str(path) for name, path in (paths or {}).items()}
    return WorkerCommand(
        name=settings.engine,
        python=settings.python,
        script=script,
        settings={**(options or {}), **places},
        weights={str(path): weights_digest(path) for path in weights},
        versions=package_versions(settings.python, tuple(packages)),
    )


def worker_fingerprint(
    command: WorkerCommand, version: str, options: Mapping[str, Any]
) -> Fingerprint:
    """Name, version, and the digests of script and weights, package versions, options.

    Places on this machine are no part of it: the same weights elsewhere give the same answers.
    """
    return {
        "name": command.name,
        "version": version,
        "script": hashlib.sha256(command.script.read_bytes()).hexdigest(),
        "weights": ", ".join(command.weights.values()),
        "packages": json.dumps(dict(command.versions), sort_keys=True),
        "options": json.dumps(dict(options), sort_keys=True),
    }
