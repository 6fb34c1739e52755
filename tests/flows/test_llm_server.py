"""The text steps by a real small model behind a real server, killed on the way.

The model (SmolLM2, 135 million parameters) answers poorly: what is shown is that every answer is
parsed or set aside with its reason, that all records are accounted for, and that neither a killed
client nor a killed server costs what was answered before. `make test-llm` sets everything up.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import yaml

from storage import inputs
from storage.catalogue import connect
from storage.store import Store
from tests.flows.conftest import BIN, REPOSITORY, Command

PYTHON = inputs.home() / "llm" / "bin" / "python"
REPORTS = 20

pytestmark = [
    pytest.mark.skipif(
        not (inputs.home() / "llm" / "installed").exists(),
        reason="no llama-cpp-python server here: `make test-llm` builds it",
    ),
    pytest.mark.skipif(
        not inputs.is_fetched("smollm2"), reason="no SmolLM2 here: `make test-llm` fetches it"
    ),
]


class Server:
    """`llama_cpp.server` with the small model, on a port of its own."""

    def __init__(self, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self._port, self._log = port, log
        self.start()

    def start(self) -> None:
        model = inputs.input_path("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
        options = {"model": model, "model_alias": "smollm2", "n_ctx": 8192, "n_threads": 2}
        options |= {"host": "127.0.0.1", "port": self._port}
        arguments = [str(word) for k, v in options.items() for word in (f"--{k}", v)]
        with self._log.open("ab") as stream:
            self._process = subprocess.Popen(
                [PYTHON, "-m", "llama_cpp.server", *arguments], stdout=stream, stderr=stream
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def server(free_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(free_port, tmp_path_factory.mktemp("server") / "log")
    yield running
    running.kill()


@pytest.fixture(scope="module")
def config(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "smollm2.yaml"
    place = {"model": "smollm2", "base_urls": [server.url], "max_concurrency": 1, "retries": 8}
    llm = {"protocol": "joint", "server": place}
    settings = {"cleaner": "llm", "extractor": "llm", "filter": "llm", "llm": llm}
    file.write_text(yaml.safe_dump(settings | {"limit": REPORTS, "shard_size": 10}))
    return file


def _answers(store: Path) -> int:
    return len(list((store / "answers").rglob("*.parquet")))


def test_a_run_outlives_its_client_and_its_server(
    vividmed: Command,
    environment: dict[str, str],
    server: Server,
    config: Path,
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    command = ["build", "openi", "--config", str(config), "--store", str(store)]
    client = subprocess.Popen(
        [BIN / "vividmed", *command],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while _answers(store) == 0:
        assert time.monotonic() < deadline, "no answer was remembered within five minutes"
        assert client.poll() is None, "the client ended before any answer"
        time.sleep(0.2)
    client.kill()
    client.wait()
    remembered = _answers(store)
    server.kill()
    server.start()

    result = vividmed(*command)
    assert result.returncode == 0, result.stderr
    assert _answers(store) >= remembered
    with connect(Store(os.fspath(store))) as rows:
        _check_accounts(rows)
        clean = rows.sql("SELECT usage FROM manifests WHERE stage = 'clean'").fetchall()
    assert sum(usage["units_remembered"] for (usage,) in clean) > 0

    again = vividmed(*command)
    assert "nothing to do" in again.stdout


def _check_accounts(rows: duckdb.DuckDBPyConnection) -> None:
    stages = rows.sql(
        "SELECT stage, sum(rows_in)::INT, sum(rows_out)::INT, "
        "coalesce(sum(list_sum(map_values(rejects))), 0)::INT FROM manifests GROUP BY stage"
    ).fetchall()
    assert {stage: into for stage, into, _, _ in stages}["ingest"] == REPORTS
    assert all(into == out + aside for _, into, out, aside in stages), stages
    nameless = rows.sql("SELECT * FROM rejects WHERE reason = '' OR detail = ''").fetchall()
    assert nameless == []
    texts = rows.sql(
        "SELECT CASE section WHEN 'findings' THEN findings ELSE impression END, start, "
        '"end", phrase FROM phrases JOIN clean_reports USING (dataset, split, study_id)'
    ).fetchall()
    assert all(text[start:end] == phrase for text, start, end, phrase in texts)
