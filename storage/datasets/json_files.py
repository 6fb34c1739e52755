"""JSON files that are small enough to be read whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storage.datasets.reader import DatasetError


def read_json(path: Path, kind: type[Any] | tuple[type[Any], ...]) -> Any:
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
