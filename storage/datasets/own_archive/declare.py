"""The declaration of a user's archive, as `vividmed ingest` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from storage.datasets.declaration import Declaration, checked
from storage.datasets.reader import DatasetError

MARK = "# Written by `vividmed ingest`"
"""Begins each such declaration; one that does not begin so is never written over."""

_NOTE = f"""{MARK}, which may write it again: delete this line to keep what you change.
# docs/extending.md explains the keys.
"""

SPLITS = ("train", "validate", "test")
_SHARD = 500
"""Reports per shard, where no volumes are."""


def parse_split(said: str | None) -> dict[str, int]:
    """`80/10/10` as percent of the patients by split; nothing for None.

    Raises:
        DatasetError: if it is not three percentages that make 100.
    """
    if said is None:
        return {}
    parts = [part.strip() for part in said.split("/")]
    if (
        len(parts) != len(SPLITS)
        or not all(p.isdecimal() for p in parts)
        or sum(map(int, parts)) != 100
    ):
        raise DatasetError(
            f"--split {said}: write percent of the patients to train, validate and test on, which "
            "make 100, such as 80/10/10"
        )
    return {split: int(p) for split, p in zip(SPLITS, parts, strict=True) if int(p)}


def values_of(
    name: str,
    layout: Mapping[str, Any],
    *,
    folder: Path | str,
    splits: list[str],
    reports: bool,
    shard_size: int = _SHARD,
) -> dict[str, Any]:
    """What the declaration says."""
    return {
        "title": f"{name}, an archive of this site",
        "licence": "not stated",
        "access": "the files of this site; not to be passed on unless someone says so",
        "citation": "none",
        "source": name,
        "splits": splits,
        "folder": str(folder),
        "shard_size": shard_size,
        "reader": "table",
        **({} if reports else {"reports": False}),
        "layout": dict(layout),
    }


def shard_size(studies: int, volumes: int) -> int:
    """Reports per shard, with about one volume in each."""
    return max(1, min(_SHARD, studies // volumes)) if volumes else _SHARD


def draft(values: Mapping[str, Any], file: Path) -> Declaration:
    """The declaration as it would be read from the file, which need not be there."""
    own = {"name": file.stem, "file": file.absolute()}
    return checked(Declaration, dict(values) | own, file)


def require_free(file: Path) -> None:
    """Refuse to write over a declaration that someone wrote or changed.

    Raises:
        DatasetError: if there is one.
    """
    try:
        begins = file.read_text(encoding="utf-8", errors="replace")[: len(MARK)]
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatasetError(f"{file} cannot be written: {error.strerror}") from error
    if begins != MARK:
        raise DatasetError(
            f"{file} is a declaration that `vividmed ingest` did not write, or that was changed: "
            "give the archive another name, or name another file with --output"
        )


def write(values: Mapping[str, Any], file: Path) -> None:
    """Write the declaration, whole or not at all."""
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=100)
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(_NOTE + text, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise DatasetError(f"{file} cannot be written: {error.strerror}") from error
