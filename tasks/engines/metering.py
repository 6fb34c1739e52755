"""What engines consume for a shard: requests, tokens, time, cached answers.

Each shard runs in its own thread and an engine serves many at once, so amounts are counted in the
context of the shard, not in the engine. All amounts are integers that add up over shards and runs.
Latencies are kept as a histogram and a sum for that reason: the quantiles of all shards follow from
the summed histogram.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_METER: ContextVar[Counter[str] | None] = ContextVar("usage", default=None)

_BINS_PER_DECADE = 10
"""Bins are a factor of 1.26 wide, so that a quantile is known within 12 %."""

_FIRST_BIN = 10
"""Answers within 10 ms; below that, the edges of neighbouring bins round to the same whole ms."""

_BIN = re.compile(r"latency_le_(\d+)_ms")


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


def latencies(seconds: Iterable[float]) -> dict[str, int]:
    """Latencies as amounts: `latency_ms`, their sum, and a histogram.

    The histogram's bins are a tenth of a decade wide (ratio 1.26): `latency_le_2512_ms` counts the
    answers that took more than 1,995 and up to 2,512 ms.
    """
    milliseconds = [1000 * s for s in seconds]
    amounts = Counter(f"latency_le_{_edge_ms(_bin(ms))}_ms" for ms in milliseconds)
    return {"latency_ms": round(sum(milliseconds)), **amounts}


def latency_s(usage: Mapping[str, int], quantile: float) -> float | None:
    """A quantile of the latencies in seconds, within 12 %; None where none were counted.

    The middle (on the logarithmic scale) of the bin in which the quantile lies.
    """
    bins = sorted((int(m[1]), n) for name, n in usage.items() if (m := _BIN.fullmatch(name)))
    left = quantile * sum(count for _, count in bins)
    for edge_ms, count in bins:
        left -= count
        if left <= 0:
            return edge_ms / 1000 / 10 ** (0.5 / _BINS_PER_DECADE)
    return None


def gpu_s(usage: Mapping[str, int]) -> float | None:
    """Busy seconds of a GPU, or of a group of GPUs that shares a model; None: unknown."""
    return usage["busy_us"] / 1e6 if "busy_us" in usage else None


def is_latency(name: str) -> bool:
    """Whether an amount is part of what `latencies` gives."""
    return name == "latency_ms" or _BIN.fullmatch(name) is not None


class BusyClock:
    """Measures how long a model was busy, however many callers it had at once.

    A second with n calls in progress counts as 1/n of a second for each of them, so the times of
    all calls add up to the time with at least one call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._at = 0.0
        self._share = 0.0

    @contextmanager
    def running(self, models: int = 1) -> Iterator[None]:
        """Count the block as `busy_us`, microseconds of a model, once for each of the models."""
        before = self._turn(+1)
        try:
            yield
        finally:
            consume(busy_us=round(1e6 * models * (self._turn(-1) - before)))

    def _turn(self, calls: int) -> float:
        """Add or remove calls; returns the seconds of a call in progress since the beginning."""
        with self._lock:
            now = time.perf_counter()
            if self._calls:
                self._share += (now - self._at) / self._calls
            self._at = now
            self._calls += calls
            return self._share


def _bin(milliseconds: float) -> int:
    number = math.ceil(_BINS_PER_DECADE * math.log10(max(milliseconds, 1.0)) - 1e-9)
    return max(number, _FIRST_BIN)


def _edge_ms(number: int) -> int:
    return round(10 ** (number / _BINS_PER_DECADE))
