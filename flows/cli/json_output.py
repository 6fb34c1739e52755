"""JSON that any program can read, printed as it grows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import typer

from flows.cli.streams import is_unicode


def print_records(records: Iterable[Mapping[str, Any]]) -> None:
    """Print a list of records one by one; nothing is kept, however many there are."""
    before = "["
    for record in records:
        typer.echo(f"{before}\n{to_json(record)}", nl=False)
        before = ","
    typer.echo("[]" if before == "[" else "\n]")


def print_json(value: Any) -> None:
    """Print one value as JSON, indented for people."""
    typer.echo(to_json(value, indent=1))


def to_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON: no NaN or infinity, which JSON does not have; bytes by their number.

    What standard output cannot take is escaped.
    """
    return json.dumps(_plain(value), ensure_ascii=not is_unicode(), allow_nan=False, indent=indent)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Decimal):
        return _plain(float(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)
