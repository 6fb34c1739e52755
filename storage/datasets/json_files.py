"""JSON files that are small enough to be read whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from storage.datasets.reader import DatasetError


def read_json(path: Path, kind: type[Any]) -> Any:
    """A JSON file whose outermost value is of a kind.

    Raises:
        DatasetError: if it cannot be read, or is of another kind.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, kind):
        raise DatasetError(f"{path} holds JSON of another form")
    return value


def by_name(entries: Iterable[Any], field: str) -> dict[str, Mapping[str, Any]]:
    """The objects of a list by what a field names them.

    One without a name, and one whose name another has before it, is found by its place, such as
    `entry 3`, and is empty.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for place, entry in enumerate(entries, start=1):
        name = str(entry.get(field) or "") if isinstance(entry, dict) else ""
        if name and "/" not in name and name not in found:
            found[name] = entry
        else:
            found[f"entry {place}"] = {}
    return found
