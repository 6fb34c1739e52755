"""What is counted of a model's work adds up over shards and callers."""

import threading
import time
from collections import Counter

import pytest

from tasks.engines.metering import BusyClock, latencies, latency_s, metered


def test_latencies_of_several_shards_add_up_to_those_of_all() -> None:
    one = [0.004, 0.2, 0.3, 1.0]
    other = [2.5, 40.0, 41.0, 700.0, 9000.0]
    together = Counter(latencies(one))
    together.update(latencies(other))
    assert together == latencies(one + other)
    assert latency_s(together, 0.5) == pytest.approx(2.5, rel=0.123)
    assert latency_s(together, 0.95) == pytest.approx(9000, rel=0.123)
    assert latency_s({}, 0.5) is None


def test_a_model_asked_by_two_at_once_is_at_work_once() -> None:
    clock = BusyClock()
    meters: list[Counter[str]] = []

    def call(start_s: float, end_s: float) -> None:
        time.sleep(start_s)
        with metered() as meter, clock.running():
            time.sleep(end_s - start_s)
        meters.append(meter)

    calls = [(0.0, 0.2), (0.1, 0.3)]
    threads = [threading.Thread(target=call, args=times) for times in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shares = [meter["busy_us"] / 1e6 for meter in meters]
    assert sum(shares) == pytest.approx(0.3, abs=0.08)
    assert shares == pytest.approx([0.15, 0.15], abs=0.06)
