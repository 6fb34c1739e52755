"""The text steps by a real small model behind a real server, killed on the way.

The model (SmolLM2, 135 million parameters) answers poorly: what is shown is that every question
has an outcome (parsed, or failed for a reason that is counted), that all records are accounted for,
and that neither a killed client nor a killed server costs what was answered before. How many
phrases were accepted is printed. `make test-llm` sets everything up.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
import yaml

from storage import inputs
from storage.catalogue import connect
from storage.store import Store
from tasks.engines.metering import gpu_s
from tests.flows.conftest import BIN, REPOSITORY, Command

PYTHON = inputs.home() / "llm" / "bin" / "python"
REPORTS = 20
FEW_REPORTS = 2
"""For `spans`, which asks this model three times as often."""

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
        options = {"model": model, "model_alias": "smollm2", "n_ctx": 8192}
        cores = len(os.sched_getaffinity(0))
        options |= {"n_threads": cores, "n_threads_batch": cores}
        options |= {"host": "127.0.0.1", "port": self._port}
        arguments = [str(word) for k, v in options.items() for word in (f"--{k}", v)]
        with self._log.open("ab") as stream:
            self._process = subprocess.Popen(
                [PYTHON, "-m", "llama_cpp.server", *arguments], stdout=stream, stderr=stream
            )

    @property
    def answered(self) -> int:
        """Chat requests that it answered, as its own log has them."""
        return self._log.read_bytes().count(b'POST /v1/chat/completions HTTP/1.1" 200')

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def server(free_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(free_port, tmp_path_factory.mktemp("server") / "log")
    yield running
    running.kill()


@pytest.fixture(scope="module")
def config(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a configuration for a protocol."""

    def write(protocol: str, **more: object) -> Path:
        place = {"model": "smollm2", "base_urls": [server.url], "max_concurrency": 1, "retries": 8}
        settings = {"cleaner": "llm", "extractor": "llm", "filter": "llm"}
        llm = {"protocol": protocol, "server": place}
        file = tmp_path_factory.mktemp("config") / f"{protocol}.yaml"
        file.write_text(yaml.safe_dump(settings | {"llm": llm} | more))
        return file

    return write


def test_a_run_outlives_its_client_and_its_server(
    vividmed: Command,
    environment: dict[str, str],
    server: Server,
    config: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "store"
    file = config("joint", limit=REPORTS, shard_size=5)
    command = ["build", "openi", "--config", str(file), "--store", str(store)]
    said = tmp_path / "client.log"
    with said.open("wb") as log:
        client = subprocess.Popen(
            [BIN / "vividmed", *command],
            cwd=REPOSITORY,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 300
    owners = store / "answers"
    while len({path.parent for path in owners.rglob("*.parquet")}) < 2:  # requests and sentences
        assert time.monotonic() < deadline, "no sentence was remembered within five minutes"
        assert client.poll() is None, f"the client ended before any answer: {said.read_text()}"
        time.sleep(0.2)
    os.killpg(client.pid, signal.SIGKILL)  # with Prefect's temporary server, its child
    client.wait()
    done = {path: path.read_bytes() for path in (store / "manifests" / "clean").rglob("*.json")}
    server.kill()
    server.start()

    result = vividmed(*command)
    assert result.returncode == 0, result.stderr
    with connect(Store(os.fspath(store))) as rows:
        check_records(rows, REPORTS)
        usage = check_questions(rows)
        accepted = accepted_phrases(rows)
    assert all(path.read_bytes() == content for path, content in done.items())
    kept = done or usage["clean"]["units_cached"] > 0
    assert kept, "what was answered before the client was killed was asked again"
    with capsys.disabled():
        sys.stdout.write(f"\njoint: {accepted}\n")

    again = vividmed(*command)
    assert "nothing to do" in again.stdout


def test_the_default_protocol_accounts_for_every_question(
    vividmed: Command,
    server: Server,
    config: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "store"
    file = config("spans", limit=FEW_REPORTS, require_sections="any")
    before = server.answered
    result = vividmed("build", "openi", "--config", str(file), "--store", str(store))
    assert result.returncode == 0, result.stderr
    with connect(Store(os.fspath(store))) as rows:
        check_records(rows, FEW_REPORTS)
        usage = check_questions(rows)
        accepted = accepted_phrases(rows)
    asked = sum(step["requests"] + step["retries"] for step in usage.values())
    assert 0 < asked <= server.answered - before, "more is counted than the server has answered"
    with capsys.disabled():
        sys.stdout.write(f"\nspans: {accepted}\n")


def check_records(rows: duckdb.DuckDBPyConnection, reports: int) -> None:
    """Rows in are rows out and rejects, every reject has a reason, every phrase is in its text."""
    stages = rows.sql(
        "SELECT stage, sum(rows_in)::INT, sum(rows_out)::INT, "
        "coalesce(sum(list_sum(map_values(rejects))), 0)::INT FROM manifests GROUP BY stage"
    ).fetchall()
    assert {stage: into for stage, into, _, _ in stages}["ingest"] == reports
    assert all(into == out + aside for _, into, out, aside in stages), stages
    nameless = rows.sql("SELECT * FROM rejects WHERE reason = '' OR detail = ''").fetchall()
    assert nameless == []
    texts = rows.sql(
        "SELECT CASE section WHEN 'findings' THEN findings ELSE impression END, start, "
        '"end", phrase FROM phrases JOIN clean_reports USING (dataset, split, study_id)'
    ).fetchall()
    assert all(text[start:end] == phrase for text, start, end, phrase in texts)


def check_questions(rows: duckdb.DuckDBPyConnection) -> dict[str, Counter[str]]:
    """Every question has an outcome, every request an answer that took its time; usage by stage."""
    usage = {stage: Counter[str]() for stage in ("clean", "extract", "filter")}
    for stage, of_shard in rows.sql("SELECT stage, usage FROM manifests").fetchall():
        if stage in usage:
            usage[stage].update(of_shard)
    for stage, of_step in usage.items():
        failed = sum(n for name, n in of_step.items() if name.startswith("units_failed_"))
        outcomes = of_step["units_answered"] + failed
        assert outcomes == of_step["units_asked"] + of_step["units_cached"], (stage, of_step)
        timed = sum(n for name, n in of_step.items() if name.startswith("latency_le_"))
        assert timed == of_step["requests"], (stage, of_step)
        assert (gpu_s(of_step) or 0) * 1000 >= of_step["latency_ms"] * 0.9, (stage, of_step)
    assert usage["clean"]["requests"] > 0
    assert usage["clean"]["units_answered"] > 0, "the model answered nothing that can be read"
    return usage


def accepted_phrases(rows: duckdb.DuckDBPyConnection) -> str:
    """What became of the phrases that the model proposed, for people."""
    (phrases,) = rows.sql("SELECT count(*) FROM phrases").fetchall()[0]
    (kept,) = rows.sql("SELECT count(*) FROM positives").fetchall()[0]
    aside = rows.sql(
        "SELECT stage || ' ' || reason, count(*) FROM rejects "
        "WHERE stage IN ('clean', 'extract', 'filter') GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    reasons = ", ".join(f"{name} {count}" for name, count in aside)
    return f"phrases {phrases} accepted, {kept} of them kept as positive; rejected: {reasons}"
