"""Engines in their own environments, on the CPU and with random weights: `make test-engines`.

An environment is named by a variable, such as SAT_PYTHON; without it, its tests are skipped. They
show that shapes, coordinates, classes and restarts are right, not that anything is found.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from storage.images.types import Volume
from tasks.engines.registry import EngineContext, checked_settings, make_engine
from taxonomy.targets import load_taxonomy

HERE = Path(__file__).parent


def named(variable):
    """The path that a variable names; the test is skipped if it names none."""
    given = os.environ.get(variable)
    if not given:
        pytest.skip(f"{variable} names no environment: see docs/worker-engines.md")
    return Path(given)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Logs go here."""
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def made(home):
    """Makes engines and ends them."""
    engines: list[Any] = []

    def make(step, **section):
        settings = checked_settings(step, section)
        engines.append(make_engine(step, settings, EngineContext(load_taxonomy(), "toy")))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def run(python, script, *arguments):
    """Run a program of this folder in an engine's own environment."""
    command = [str(python), str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def kill_workers():
    """End every worker that this process has started, as the kernel does when memory is short."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any(part.endswith("_worker.py") for part in child.cmdline()[:2]):
                child.kill()


@pytest.fixture
def volume():
    """An oblique, anisotropic volume of noise between air and bone."""
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]) @ np.diag([2.0, 2.0, 4.0])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, (-70, -60, -90)
    hu = np.random.default_rng(3).integers(-1000, 400, (60, 50, 36)).astype(np.int16)
    return Volume(hu, affine)
