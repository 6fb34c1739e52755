"""What is known of a worker before it starts: its interpreter, its packages, its weights."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from storage.digests import MISSING, content_digests
from tasks.engines.registry import EngineChoiceError

_VERSIONS = """
import json, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""

_ANSWER_S = 120.0
"""Seconds for an interpreter to start and read metadata; a cold network drive takes some ten."""


@cache
def package_versions(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of distributions in the environment of an interpreter, `none` for one not there.

    Raises:
        EngineChoiceError: if the interpreter cannot be run.
    """
    try:
        run = subprocess.run(
            [os.fspath(python), "-c", _VERSIONS, *packages],
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        versions: dict[str, str] = json.loads(run.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        told = getattr(error, "strerror", None) or type(error).__name__
        raise EngineChoiceError(
            f"python = {python} cannot be run ({told}): name the interpreter of the engine's own "
            "environment, such as ~/envs/sat/bin/python"
        ) from error
    return versions


def weights_digest(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder; as `vividmed_worker.digest_of`.

    Raises:
        EngineChoiceError: if there is nothing at the path.
    """
    if path.is_dir():
        files = {name.as_posix(): path / name for name in _inside(path)}
        digests = content_digests(files.values())
        lines = "\n".join(f"{name} {digests[files[name]]}" for name in sorted(files))
        return hashlib.sha256(lines.encode()).hexdigest()
    digest = content_digests([path])[path]
    if digest == MISSING:
        raise EngineChoiceError(f"there are no weights at {path}")
    return digest


def _inside(folder: Path) -> Sequence[Path]:
    inside = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    return [name for name in inside if not any(part.startswith(".") for part in name.parts)]
