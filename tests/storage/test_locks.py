"""A data set is changed by one run at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage import locks
from storage.locks import hold
from storage.store import Store, StoreError

_HOLDING = """
import sys, time
from storage.locks import hold
from storage.store import Store
with hold(Store(sys.argv[1]), "openi"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_SETTLING_S", 0.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def _rewrite(store: Store, **process: object) -> None:
    """Let the lock say that another process holds it."""
    [path] = store.list("locks")
    holder = json.loads(store.read(path) or b"")
    holder |= {"token": "another", "process": holder["process"] | process}
    store.write(path, json.dumps(holder).encode())


def test_a_second_run_is_told_who_holds_it_and_other_data_sets_are_free(store: Store) -> None:
    told = rf"openi in .* is being changed by process {os.getpid()} on \S+ since 20"
    with hold(store, "openi"):
        with pytest.raises(StoreError, match=told), hold(store, "openi"):
            pass
        with hold(store, "openi-2"):
            pass
    with hold(store, "openi"):
        pass
    assert store.list("locks") == []


def test_the_lock_of_a_killed_process_is_taken_over(store: Store) -> None:
    command = [sys.executable, "-c", _HOLDING, store.root]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == b"held\n"
        told = f"process {holding.pid} "
        with pytest.raises(StoreError, match=told), hold(store, "openi"):
            pass
        holding.send_signal(signal.SIGKILL)
    with hold(store, "openi"):
        assert len(store.list("locks")) == 1
    assert store.list("locks") == []


def test_the_lock_of_another_machine_is_taken_over_when_nobody_renews_it(store: Store) -> None:
    with hold(store, "openi") as lock:
        _rewrite(store, host="elsewhere", pid=1)
        with pytest.raises(StoreError, match="process 1 on elsewhere"), hold(store, "openi"):
            pass
        with pytest.raises(StoreError, match="another run has taken over openi"):
            lock.require()
        [path] = store.list("locks")
        long_ago = time.time() - locks._LEFT.total_seconds() - 1
        os.utime(store.location(path), (long_ago, long_ago))
        with hold(store, "openi") as taken:
            taken.require()


def test_a_lock_is_renewed_while_it_is_held(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_RENEWED_EVERY_S", 0.01)
    with hold(store, "openi"):
        [path] = store.list("locks")
        os.utime(store.location(path), (0, 0))
        for _ in range(1000):
            if Path(store.location(path)).stat().st_mtime:
                break
            time.sleep(0.01)
        assert Path(store.location(path)).stat().st_mtime


def test_a_bucket_has_a_lock_too(bucket: Store) -> None:
    with hold(bucket, "locked") as lock:
        with pytest.raises(StoreError, match="locked in s3://"), hold(bucket, "locked"):
            pass
        lock.require()
    assert not [path for path in bucket.list("locks") if "locked" in path]
