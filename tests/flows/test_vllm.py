"""The text steps by a real vLLM with a real small model: as a server, as a child, by batch files.

The model (SmolLM2, 135 million parameters) answers poorly: what is shown is that each protocol runs
to its end with each of the three, and that every question and record is accounted for. `make
test-vllm` sets everything up; the builds take minutes each on two cores.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from storage import inputs
from storage.catalogue import connect
from storage.store import Store
from tasks.engines.llm.chat.settings import VllmSettings
from tasks.engines.llm.chat.vllm_process import serve_arguments
from tests.flows.conftest import Command
from tests.flows.test_llm_server import accepted_phrases, check_questions, check_records

PYTHON = inputs.home() / "vllm" / "bin" / "python"
MODEL = inputs.home() / "vllm" / "smollm2"
CLI = [os.fspath(PYTHON), "-m", "vllm.entrypoints.cli.main"]
PROTOCOLS = ["spans", "joint", "inline", "cascade"]
REPORTS = 2
ROUNDS = 12
"""Rounds of batch files at most: three steps, each with three attempts, and some to spare."""
OPTIONS: dict[str, Any] = {"max_num_seqs": 16, "enforce_eager": True}
SIZES: dict[str, Any] = {"max_model_len": 8192, "dtype": "bfloat16"}

pytestmark = pytest.mark.skipif(
    not (MODEL / "config.json").exists(), reason="no vLLM here: `make test-vllm` sets it up"
)


@pytest.fixture(scope="module", autouse=True)
def small_machine() -> Iterator[None]:
    """vLLM's CPU build takes all cores and half the memory unless told otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_NO_USAGE_STATS", "1")
        yield


@pytest.fixture(scope="module")
def server(
    small_machine: None, free_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    settings = VllmSettings(model=str(MODEL), engine_options=OPTIONS, **SIZES)
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*CLI, "serve", str(MODEL), *serve_arguments(settings, free_port)],
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{free_port}"
    deadline = time.monotonic() + 900
    while not _is_healthy(url):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(1)
    yield f"{url}/v1"
    process.terminate()
    process.wait()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.RequestError:
        return False


@pytest.fixture
def build(
    vividmed: Command, environment: dict[str, str], tmp_path: Path
) -> Callable[[str, dict[str, Any]], str]:
    """Builds from some reports by a protocol; what became of the phrases, after all checks."""

    def run(protocol: str, place: dict[str, Any]) -> str:
        store = tmp_path / "store"
        _write_config(tmp_path, protocol, place)
        command = ["build", "openi", "--config", str(tmp_path / "llm.yaml"), "--store", str(store)]
        result = vividmed(*command, **_environment())
        assert result.returncode == 0, result.stderr[-3000:]
        with connect(Store(os.fspath(store))) as rows:
            check_records(rows, REPORTS)
            if "batch" not in place:  # whose answers have no times
                check_questions(rows)
            return accepted_phrases(rows)

    return run


def _environment() -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE", "VLLM_NO_USAGE_STATS")
    return {name: os.environ[name] for name in names}


def _write_config(folder: Path, protocol: str, place: dict[str, Any]) -> Path:
    steps = {"cleaner": "llm", "extractor": "llm", "filter": "llm"}
    llm = {"protocol": protocol, **place}
    file = folder / "llm.yaml"
    file.write_text(
        yaml.safe_dump(steps | {"limit": REPORTS, "require_sections": "any", "llm": llm})
    )
    return file


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server(protocol: str, server: str, build: Callable[..., str]) -> None:
    build(protocol, {"server": {"model": str(MODEL), "base_urls": [server]}})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_child_of_the_run(protocol: str, build: Callable[..., str]) -> None:
    place = {"model": str(MODEL), "python": str(PYTHON), "engine_options": OPTIONS, **SIZES}
    build(protocol, {"vllm": place})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_batch_files_round_after_round(
    protocol: str, build: Callable[..., str], vividmed: Command, tmp_path: Path
) -> None:
    place = {"batch": {"model": str(MODEL), "answers": str(tmp_path / "answers-*.jsonl")}}
    config = _write_config(tmp_path, protocol, place)
    for number in range(ROUNDS):
        requests = tmp_path / f"requests-{number}.jsonl"
        arguments = ["openi", str(requests), "--config", str(config)]
        said = vividmed("batch", *arguments, "--store", str(tmp_path / "store"))
        assert said.returncode == 0, said.stderr
        if "nothing is left to ask" in said.stdout:
            break
        answers = tmp_path / f"answers-{number}.jsonl"
        command = [*CLI, "run-batch", "-i", str(requests), "-o", str(answers)]
        command += ["--model", str(MODEL), "--max-model-len=8192", "--dtype=bfloat16"]
        subprocess.run([*command, "--max-num-seqs=16", "--enforce-eager"], check=True)
    else:
        pytest.fail(f"requests are left after {ROUNDS} rounds")
    build(protocol, place)
