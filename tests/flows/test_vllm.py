"""The text steps by a real vLLM with a real small model: as a server, as a child, by batch files.

The model (SmolLM2, 135 million parameters) answers poorly: what is shown is that each protocol runs
to its end with each of the three, and that every question and record is accounted for. `make
test-vllm` sets everything up; the builds take minutes each on two cores.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import httpx
import pytest
import yaml

from storage import inputs
from storage.catalogue import connect
from storage.store import Store
from tasks.engines.llm.chat.settings import VllmSettings
from tasks.engines.llm.chat.vllm_process import as_arguments, serve_arguments
from tests.flows.conftest import Command
from tests.flows.test_llm_server import accepted_phrases, check_records

PYTHON = inputs.home() / "vllm" / "bin" / "python"
MODEL = inputs.home() / "vllm" / "smollm2"
CLI = [os.fspath(PYTHON), "-m", "vllm.entrypoints.cli.main"]
PROTOCOLS = ["spans", "joint", "inline", "cascade"]
STEPS = {"cleaner": "llm", "extractor": "llm", "filter": "llm"}
FILTER_ALONE = {"cleaner": "rules", "extractor": "lexicon", "filter": "llm"}
"""For `cascade`, whose other steps are those of `spans`. None of the phrases that this model names
is in its sentence, so a filter is only asked about phrases of the lexicon."""
REPORTS = {"spans": 2, "joint": 2, "inline": 2, "cascade": 10}
"""The first ten hold six sentences with a hedge, about which `cascade` asks."""
ROUNDS = 12
"""Rounds of batch files at most: three steps, each with three attempts, and some to spare."""
OPTIONS: dict[str, Any] = {"max_num_seqs": 16, "enforce_eager": True}
SIZES: dict[str, Any] = {"max_model_len": 8192, "dtype": "float32"}
"""On a CPU without instructions for bfloat16, a prompt in that format takes eight times as long."""

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


class Built(NamedTuple):
    """What became of a build: its reports, and what its steps asked the model.

    reports: those with a grounded report or a reason for having none.
    asked: requests. questions: distinct sentences or texts that they were about.
    outcomes: questions with an answer that could be used, or a reason why there is none.
    """

    reports: int
    asked: int
    questions: int
    outcomes: int


@pytest.fixture
def build(vividmed: Command, tmp_path: Path) -> Callable[[str, dict[str, Any]], Built]:
    """Builds from some reports by a protocol."""

    def run(protocol: str, place: dict[str, Any]) -> Built:
        store = tmp_path / "store"
        _write_config(tmp_path, protocol, place)
        command = ["build", "openi", "--config", str(tmp_path / "llm.yaml"), "--store", str(store)]
        result = vividmed(*command, **_environment())
        assert result.returncode == 0, result.stderr[-3000:]
        with connect(Store(os.fspath(store))) as rows:
            check_records(rows, REPORTS[protocol])
            sys.stdout.write(f"\n{protocol}: {accepted_phrases(rows)}\n")
            return _built(rows)

    return run


def _built(rows: duckdb.DuckDBPyConnection) -> Built:
    [(reports,)] = rows.sql(
        "SELECT count(DISTINCT study_id) FROM (SELECT study_id FROM grounded_reports "
        "UNION ALL SELECT study_id FROM rejects WHERE section IS NULL)"
    ).fetchall()
    usage = Counter[str]()
    for (of_shard,) in rows.sql("SELECT usage FROM manifests").fetchall():
        usage.update(of_shard)
    failed = sum(n for name, n in usage.items() if name.startswith("units_failed_"))
    questions = usage["units_asked"] + usage["units_cached"]
    return Built(reports, usage["requests"], questions, usage["units_answered"] + failed)


def _environment() -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE", "VLLM_NO_USAGE_STATS")
    return {name: os.environ[name] for name in names}


def _write_config(folder: Path, protocol: str, place: dict[str, Any]) -> Path:
    steps = FILTER_ALONE if protocol == "cascade" else STEPS
    run = {"limit": REPORTS[protocol], "require_sections": "any"}
    file = folder / "llm.yaml"
    file.write_text(yaml.safe_dump(steps | run | {"llm": {"protocol": protocol, **place}}))
    return file


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server(protocol: str, server: str, build: Callable[..., Built]) -> None:
    built = build(protocol, {"server": {"model": str(MODEL), "base_urls": [server]}})
    assert built.reports == REPORTS[protocol]
    assert built.asked > 0
    assert built.outcomes == built.questions > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_child_of_the_run(protocol: str, build: Callable[..., Built]) -> None:
    place = {"model": str(MODEL), "python": str(PYTHON), "engine_options": OPTIONS, **SIZES}
    built = build(protocol, {"vllm": place})
    assert built.reports == REPORTS[protocol]
    assert built.asked > 0
    assert built.outcomes == built.questions > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_batch_files_round_after_round(
    protocol: str, build: Callable[..., Built], vividmed: Command, tmp_path: Path
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
        command += ["--model", str(MODEL), *as_arguments(SIZES | OPTIONS)]
        subprocess.run(command, check=True)
    else:
        pytest.fail(f"requests are left after {ROUNDS} rounds")
    built = build(protocol, place)
    assert built.reports == REPORTS[protocol]
    assert list(tmp_path.glob("answers-*.jsonl"))
    assert built.outcomes == built.questions > 0
