"""Workers that are the stand-in, run by a Python of its own that has nothing of ours."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.engines.worker.pool import WorkerPool
from tasks.engines.worker.prepared import SCRIPTS
from tasks.engines.worker.process import Limits, WorkerCommand

LIMITS = Limits(start_s=120, request_s=120, silent_s=120)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """The stand-in's script in a folder with the file that a third party copies."""
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path))
    folder = tmp_path / "foreign"
    folder.mkdir()
    shutil.copy(SCRIPTS / "vividmed_worker.py", folder)
    return Path(shutil.copy(Path(__file__).with_name("stand_in.py"), folder))


@pytest.fixture
def pool(stand_in):
    """Makes pools of workers with these settings, and ends them."""
    made = []

    def make(limits=None, gpus=(None,), versions=None, weights=None, **settings):
        command = WorkerCommand(
            "stand-in",
            Path(sys.executable),
            stand_in,
            settings,
            weights or {},
            versions or {},
        )
        made.append(WorkerPool(command, replace(LIMITS, **(limits or {})), gpus))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def log(tmp_path):
    """What all workers have written to standard error."""

    def read():
        return "".join(file.read_text() for file in sorted((tmp_path / "logs").glob("worker-*")))

    return read
