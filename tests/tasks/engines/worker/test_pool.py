"""The worker protocol against a stand-in: real processes that fail in every way."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from tasks.engines.metering import metered
from tasks.engines.worker import pool as pool_module
from tasks.engines.worker.environment import package_versions, weights_digest
from tasks.engines.worker.errors import WorkerError, WorkerLostError, WorkerRefusedError

REPOSITORY = Path(__file__).parents[4]


def ask(pool, value=1, prompts=("above",)):
    voxels = np.zeros((6, 5, 4), np.int16)
    voxels[0, 0, 0] = value
    voxels[3:5, 2, 1] = 7
    request = {
        "do": "segment",
        "affine": np.eye(4).ravel().tolist(),
        "modality": "CT",
        "prompts": list(prompts),
    }
    return pool.ask(request, {"volume": [voxels]})


def wait_until_gone(pids):
    deadline = time.monotonic() + 60
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process lives on"
        time.sleep(0.05)


def _runs(pid):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_answers_are_cut_masks_and_reasons(pool, log):
    reply = ask(pool(), prompts=("7", "nothing", "strange", "empty"))
    seven, *others = reply.message["answers"]
    assert (seven["start"], seven["score"]) == ([3, 2, 1], None)
    part = reply.array(seven["mask"])
    assert part.shape == (2, 1, 1)
    assert part.all()
    assert [answer["reason"] for answer in others] == ["not_found", "unknown", "not_found"]
    assert "loading, says a library" in log()


def test_the_handshake_compares_versions_and_weights(pool, tmp_path):
    weights = tmp_path / "weights"
    (weights / "fold_0").mkdir(parents=True)
    (weights / "fold_0" / "model.pt").write_bytes(b"of a model")
    (weights / ".cache").write_bytes(b"none of them")
    digest = weights_digest(weights)
    line = f"fold_0/model.pt {hashlib.sha256(b'of a model').hexdigest()}"
    assert digest == hashlib.sha256(line.encode()).hexdigest()
    versions = package_versions(Path(sys.executable), ("numpy", "no-such-package"))
    assert versions == {"numpy": np.__version__, "no-such-package": "none"}
    assert ask(pool(versions=versions, weights={str(weights): digest})).message["answers"]
    with pytest.raises(WorkerError, match="other weights than were found"):
        ask(pool(weights={str(weights): "0" * 64}))


def test_a_lost_request_is_sent_once_more(pool, tmp_path):
    faults = {"7": "crash", "8": "killed", "9": "leave"}
    workers = pool(faults=faults, marks=str(tmp_path))
    with metered() as usage:
        assert all(ask(workers, value).message["answers"] for value in (7, 8, 9))
    assert usage["workers_lost"] == 3


def test_a_request_lost_twice_is_told_with_the_last_words_and_the_next_goes_well(pool):
    workers = pool(faults={"9": "crash"})
    with pytest.raises(WorkerLostError, match=r"signal 11.*a library fails.*logs/worker") as lost:
        ask(workers, 9)
    assert lost.value.reason == "worker_crashed"
    assert ask(workers, 1).message["answers"]


def test_losses_in_a_row_end_the_run(pool, monkeypatch):
    monkeypatch.setattr(pool_module, "LOSSES_IN_A_ROW", 2)
    workers = pool(faults={"9": "leave"})
    with pytest.raises(WorkerLostError):
        workers.ask(*_request(9), retry=False)
    with pytest.raises(WorkerError, match="lost at 2 requests in a row"):
        workers.ask(*_request(9), retry=False)


def test_a_failure_is_told_and_the_worker_goes_on(pool):
    told = {
        "raises": ("worker_failed", "ValueError: this volume is odd"),
        "exits": ("worker_failed", "no licence for this task"),
        "memory_error": ("worker_out_of_memory", "CUDA out of memory"),
        "cuda_error": ("worker_failed", "device-side assert"),  # after which it starts again
    }
    workers = pool(faults={str(value): fault for value, fault in enumerate(told, 6)})
    for value, (reason, words) in enumerate(told.values(), 6):
        with pytest.raises(WorkerRefusedError, match=words) as refused:
            ask(workers, value)
        assert refused.value.reason == reason
    assert ask(workers, 1).message["answers"]


@pytest.mark.parametrize(
    ("fault", "limits", "reason"),
    [
        ("hang", {"request_s": 2}, "worker_timeout"),
        ("grow", {"memory_bytes": 500 << 20}, "worker_out_of_memory"),
    ],
)
def test_a_worker_beyond_its_limits_is_ended(pool, fault, limits, reason):
    with pytest.raises(WorkerLostError) as lost:
        pool(limits, faults={"9": fault}).ask(*_request(9), retry=False)
    assert lost.value.reason == reason


def _request(value):
    voxels = np.full((2, 2, 2), value, np.int16)
    request = {"do": "segment", "affine": np.eye(4).ravel().tolist()}
    return {**request, "modality": "CT", "prompts": ["above"]}, {"volume": [voxels]}


def test_a_silent_worker_is_ended(pool):
    with pytest.raises(WorkerError, match=r"no sign of life for 0\.3 s"):
        ask(pool({"silent_s": 0.3}, start_s=60))


def test_prints_of_the_engine_are_no_messages(pool, log):
    assert ask(pool(faults={"9": "prints"}), 9).message["answers"]
    assert "noise of a C library" in log()


@pytest.mark.parametrize(
    ("settings", "limits", "words"),
    [
        ({"start": "fails"}, {}, "the checkpoint lacks 3 tensors"),
        ({"start": "exits"}, {}, "no licence"),
        ({"start_s": 60}, {"start_s": 1}, "did not answer within 1 s"),
    ],
)
def test_a_worker_that_does_not_start_ends_the_run(pool, settings, limits, words):
    with pytest.raises(WorkerError, match=words):
        ask(pool(limits, **settings))


@pytest.mark.parametrize(
    ("kind", "words"), [("garbage", "speaks protocol 99, this program 1"), ("huge", "64 MiB")]
)
def test_what_is_no_worker_is_refused(pool, monkeypatch, kind, words):
    monkeypatch.setenv("STAND_IN", kind)
    with pytest.raises(WorkerError, match=words):
        ask(pool())


def test_each_worker_sees_one_gpu_and_works_for_one_shard(pool, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    workers = pool(gpus=(0, 1), faults={"9": "hang"})
    hung = threading.Thread(target=lambda: suppress_lost(workers))
    hung.start()
    for _ in range(3):
        assert ask(workers, 1).message["answers"]
    started = [
        child
        for child in psutil.Process().children(recursive=True)
        if "stand_in.py" in " ".join(child.cmdline()) and "--stdin" not in child.cmdline()
    ]
    assert {child.environ()["CUDA_VISIBLE_DEVICES"] for child in started} == {"4", "6"}
    for child in started:
        child.kill()
    hung.join()


def suppress_lost(workers):
    with suppress(WorkerLostError, WorkerError):
        workers.ask(*_request(9), retry=False)


def test_nothing_is_left_of_a_worker(pool, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    others = {child.pid for child in psutil.Process().children(recursive=True)}
    workers = pool(faults={"9": "leave"})
    ask(workers)
    (folder,) = scratch.iterdir()
    assert not list(folder.iterdir())
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    pids = children - others  # those of other tests stay
    assert pids
    workers.close()
    wait_until_gone(pids)
    assert ask(workers).message["answers"]
    with pytest.raises(WorkerLostError):
        workers.ask(*_request(9), retry=False)
    assert not list(folder.iterdir())


PARENT = """
import json, sys
from pathlib import Path
import numpy as np, psutil
from tasks.engines.worker.pool import WorkerPool
from tasks.engines.worker.process import Limits, WorkerCommand
command = WorkerCommand("stand-in", Path(sys.executable), Path(sys.argv[1]), {"faults": {"9": "hang"}})
pool = WorkerPool(command, Limits())
def ask(value):
    request = {"do": "segment", "affine": np.eye(4).ravel().tolist()}
    request |= {"modality": "CT", "prompts": ["above"]}
    return pool.ask(request, {"volume": [np.full((2, 2, 2), value, np.int16)]})
ask(1)
children = [child.pid for child in psutil.Process().children(recursive=True)]
print(json.dumps([str(pool._scratch), children]), flush=True)
ask(9)
"""  # noqa: E501 one program


def test_a_killed_run_leaves_no_worker_behind(stand_in, tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-c", PARENT, stand_in],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
    )
    assert run.stdout is not None
    folder, children = json.loads(run.stdout.readline())
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    wait_until_gone(children)
    assert len(children) == 2
    assert not Path(folder).exists()
