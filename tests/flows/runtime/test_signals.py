"""Signals end a process whatever its threads do, and its children with it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.runtime.signals import end_at_signals
from tests.flows.conftest import REPOSITORY

BUSY = """
import multiprocessing, signal, sys, time
from flows.runtime.signals import end_at_signals

def work():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    child.start()
    print(child.pid, flush=True)
    while True:  # nothing that could be interrupted
        sum(range(1000))

if __name__ == "__main__":
    if "ignored" in sys.argv:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_at_signals(work)
"""


def _busy(tmp_path: Path, *arguments: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    (tmp_path / "busy.py").write_text(BUSY)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "busy.py"), *arguments],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # `nohup make test` would have all of its children ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_ends_the_process_and_its_children(number: signal.Signals, tmp_path: Path) -> None:
    process, child = _busy(tmp_path)
    began = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 128 + number
    assert said.strip().startswith(f"stopped by {number.name}:")
    assert psutil.wait_procs([child], timeout=5)[1] == []


def test_a_signal_that_was_ignored_stays_so(tmp_path: Path) -> None:
    process, child = _busy(tmp_path, "ignored")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert psutil.wait_procs([child], timeout=5)[1] == []


def test_work_gives_its_result_and_its_error() -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert end_at_signals(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            end_at_signals(lambda: 1 // 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


AFTERWARDS = """
import time
from flows.runtime.signals import end_at_signals
end_at_signals(lambda: None)
print(flush=True)
time.sleep(60)
"""


def test_a_signal_ends_the_process_after_the_work_too() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", AFTERWARDS],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
