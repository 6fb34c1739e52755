"""What engines consume while a shard is made: requests, tokens, answers remembered.

A shard runs in a thread of its own and an engine serves many at a time, so the count belongs to the
context that the shard runs in, not to the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_METER: ContextVar[Counter[str] | None] = ContextVar("usage", default=None)


@contextmanager
def metered() -> Iterator[Counter[str]]:
    """Count what engines consume inside the block, in this context and those started from it."""
    meter: Counter[str] = Counter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def consume(**amounts: int) -> None:
    """Add to the count of the surrounding block: `requests=1, tokens_in=812, tokens_out=37`."""
    if (meter := _METER.get()) is not None:
        meter.update(amounts)
