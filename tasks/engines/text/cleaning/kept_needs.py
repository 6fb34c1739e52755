"""Keeps what the patterns of the rules need in the data folder: to derive it takes two seconds.

The file is named by everything that decides its content: the rules, the code that derives it, and
the version of Python, whose parser it uses. It only saves time: one that is damaged, or that cannot
be written, is done without.
"""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storage.inputs import home
from tasks.engines.text.cleaning import literals


@contextmanager
def kept_needs(rules: Path) -> Iterator[None]:
    """Inside, the needs of patterns are looked up in the file before they are derived.

    Args:
        rules: the file that the patterns come from.
    """
    path = home() / "derived" / f"rules-{_digest(rules)}.json"
    with suppress(OSError, ValueError, TypeError, AttributeError):
        literals.know(json.loads(path.read_text(encoding="utf-8")))
    count = literals.known_patterns()
    yield
    if literals.known_patterns() > count:
        with suppress(OSError):
            _write(path, json.dumps(literals.known()))


def _digest(rules: Path) -> str:
    decides = (rules.read_bytes(), Path(literals.__file__).read_bytes(), sys.version.encode())
    return hashlib.sha256(b"\0".join(decides)).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{uuid.uuid4().hex}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
