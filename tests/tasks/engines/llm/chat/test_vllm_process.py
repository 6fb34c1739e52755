"""vLLM as a child process: started, asked, ended, by the code that a real one is started by.

A small program stands in for vLLM (`vllm_stand_in`); `make test-vllm` runs the real one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from tasks.engines.llm.chat import vllm_engine
from tasks.engines.llm.chat.engine import ChatRequest, EngineError, Message
from tasks.engines.llm.chat.settings import VllmSettings
from tasks.engines.llm.chat.vllm_engine import VllmEngine
from tasks.engines.llm.chat.vllm_process import serve_arguments
from tasks.engines.metering import metered
from tests.tasks.engines.llm import vllm_stand_in

REPOSITORY = Path(__file__).parents[5]
SCHEMA = {"type": "object", "properties": {"finding": {"enum": ["nodule"]}}}


def ask(content="a", schema=None):
    return [ChatRequest((Message("system", "rules"), Message("user", content)), 16, schema)]


@pytest.fixture
def python(tmp_path, monkeypatch):
    """The Python of an environment whose vLLM is the stand-in."""
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path))
    place = tmp_path / "packages" / "vllm" / "entrypoints" / "cli"
    place.mkdir(parents=True)
    shutil.copy(vllm_stand_in.__file__, place / "main.py")
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/packages exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def engine(python):
    made = []

    def make(**settings):
        made.append(VllmEngine(VllmSettings(model="m", python=python, **settings)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def about(tmp_path):
    """What the stand-in wrote of itself."""
    (log,) = (tmp_path / "logs").glob("vllm-*.log")
    return json.loads(log.read_text().splitlines()[0])


def wait_until_gone(pids):
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(pid) and _runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_it_starts_answers_and_ends_with_all_its_processes(engine, tmp_path):
    client = engine(max_model_len=4096, engine_options={"max_num_seqs": 8})
    assert client.complete([]) == []
    assert not (tmp_path / "logs").exists()
    with metered() as used:
        (answer,) = client.complete(ask(schema=SCHEMA))
    assert answer.text == '{"finding": "nodule"}'
    assert used["tokens_in"] == 7
    assert client.complete(ask())[0].text == "answer to a"
    seen = about(tmp_path)
    assert seen["arguments"][:2] == ["serve", "m"]
    assert {"--max-num-seqs=8", "--max-model-len=4096", "--host=127.0.0.1"} <= {*seen["arguments"]}
    assert all(map(_runs, seen["pids"]))
    client.close()
    wait_until_gone(seen["pids"])


def test_a_server_that_ends_while_it_starts_is_quoted_at_once(engine, tmp_path):
    client = engine(engine_options={"stand_in": "at-start"})
    with pytest.raises(EngineError, match=r"exit code 1 .*No available memory.*its log is") as told:
        client.complete(ask())
    (log,) = (tmp_path / "logs").glob("vllm-*.log")
    assert str(log) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_server_that_ends_at_work_ends_the_run(engine):
    client = engine(engine_options={"stand_in": "at-request"}, retries=2)
    with pytest.raises(EngineError, match=r"exit code 3 .*EngineCore died"):
        client.complete(ask())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_a_run_that_is_killed(number, python, tmp_path):
    code = (
        "import sys, time\n"
        "from threading import Thread\n"
        "from tasks.engines.llm.chat.vllm_engine import VllmEngine\n"
        "from tasks.engines.llm.chat.settings import VllmSettings\n"
        "from tests.tasks.engines.llm.chat.test_vllm_process import ask\n"
        f"engine = VllmEngine(VllmSettings(model='m', python={str(python)!r}))\n"
        "thread = Thread(target=engine.complete, args=(ask(),))\n"
        "thread.start(); thread.join()\n"  # the thread that started vLLM ends: vLLM stays
        "print('up', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        pids = about(tmp_path)["pids"]
        assert all(map(_runs, pids))
        os.kill(run.pid, number)
    wait_until_gone(pids)


def test_an_environment_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path))
    with pytest.raises(EngineError, match=r"no .*vllm/bin/python: run `make setup-vllm`"):
        VllmEngine(VllmSettings(model="m")).complete(ask())


# Settings


def test_options_become_arguments_of_vllm():
    settings = VllmSettings(
        model="m",
        revision="abc",
        data_parallel_size=2,
        seed=7,
        engine_options={
            "--enforce-eager": True,
            "enable_prefix_caching": False,
            "gpu_memory_utilization": 0.8,
            "hf_overrides": {"rope_theta": 5},
            "max_num_seqs": None,
        },
    )
    assert serve_arguments(settings, 8123) == [
        "--served-model-name=m",
        "--host=127.0.0.1",
        "--port=8123",
        "--dtype=auto",
        "--tensor-parallel-size=1",
        "--seed=7",
        "--data-parallel-size=2",
        "--revision=abc",
        "--tokenizer-revision=abc",
        "--no-enable-prefix-caching",
        "--enforce-eager",
        "--gpu-memory-utilization=0.8",
        '--hf-overrides={"rope_theta": 5}',
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("port", "decided by the run"),
        ("--served-model-name", "decided by the run"),
        ("tensor_parallel_size", "a setting of its own"),
        ("max num seqs", "no argument of `vllm serve`"),
    ],
)
def test_options_that_are_set_elsewhere_are_refused(name, says):
    with pytest.raises(ValidationError, match=says):
        VllmSettings(model="m", engine_options={name: 1})


def test_options_of_speed_identify_no_answers_and_others_do():
    plain = VllmSettings(model="m").identity()
    faster = {"max_num_seqs": 4, "enforce_eager": True, "gpu_memory_utilization": 0.5}
    assert VllmSettings(model="m", engine_options=faster).identity() == plain
    assert VllmSettings(model="m", tensor_parallel_size=8, retries=1).identity() == plain
    for change in (
        {"engine_options": {"kv_cache_dtype": "fp8"}},
        {"dtype": "float16"},
        {"quantization": "awq"},
        {"thinking_tokens": 100},
    ):
        assert VllmSettings(model="m", **change).identity() != plain


def test_a_local_model_is_known_by_its_content(tmp_path, monkeypatch):
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path / "home"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"first")
    engine = VllmEngine(VllmSettings(model=str(folder)))
    first = engine.fingerprint
    vllm_engine._local_weights.cache_clear()  # another process
    (folder / "model.safetensors").write_bytes(b"trained on")
    second = engine.fingerprint
    assert first["weights"] != second["weights"]
    assert "weights" not in VllmEngine(VllmSettings(model="meta-llama/some-model")).fingerprint
