"""A deployment run as a team runs it: a real server, a real worker, the command line of Prefect."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from tests.flows.conftest import BIN, REPOSITORY


class Prefect:
    """The prefect command against one server."""

    def __init__(self, environment: dict[str, str], port: int) -> None:
        self.api = f"http://127.0.0.1:{port}/api"
        self._environment = environment | {"PREFECT_API_URL": self.api}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("prefect", arguments)

    def vividmed(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("vividmed", arguments)

    def _run(self, command: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / command, *arguments],
            cwd=REPOSITORY,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def start(self, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with log.open("wb") as stream:
            return subprocess.Popen(
                [BIN / "prefect", *arguments],
                cwd=REPOSITORY,
                env=self._environment,
                stdout=stream,
                stderr=stream,
            )

    def post(self, path: str, body: dict[str, object]) -> list[dict[str, object]]:
        request = urllib.request.Request(  # noqa: S310 the address is our own server's
            f"{self.api}/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            found: list[dict[str, object]] = json.load(answer)
            return found

    def is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.api}/health", timeout=2) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@pytest.fixture(scope="module")
def prefect(
    environment: dict[str, str], free_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prefect]:
    logs = tmp_path_factory.mktemp("logs")
    client = Prefect(environment, free_port)
    arguments = ("server", "start", "--host", "127.0.0.1", "--port", str(free_port))
    server = client.start(logs / "server.log", *arguments)
    worker = None
    try:
        deadline = time.monotonic() + 120
        while not client.is_up():
            assert server.poll() is None, (logs / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.5)
        for name in ("cpu", "gpu"):
            pool = client.run("work-pool", "create", name, "--type", "process", "--overwrite")
            assert pool.returncode == 0, pool.stderr
        deployed = client.run("--no-prompt", "deploy", "--all")
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        worker = client.start(logs / "worker.log", "worker", "start", "--pool", "cpu")
        yield client
    finally:
        for process in (worker, server):
            if process is not None:
                process.terminate()
                process.wait(timeout=60)


def test_a_deployment_runs_to_its_end_on_a_worker(prefect: Prefect, home: Path) -> None:
    result = prefect.run("deployment", "run", "build-grounded-reports/openi", "--watch")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "finished successfully" in result.stdout

    shards = sorted((home / "store" / "grounded_reports").rglob("*.parquet"))
    assert len(shards) == 4

    [run] = [r for r in prefect.post("flow_runs/filter", {}) if r["deployment_id"]]
    ours = [r for r in prefect.post("artifacts/filter", {}) if r["flow_run_id"] == run["id"]]
    artifacts = {row["key"]: row for row in ours if row["key"]}
    assert {"openi-progress", "openi-stages", "openi-gallery"} <= artifacts.keys()
    assert all(row["description"] for row in artifacts.values())
    gallery = home / "store" / "gallery.html"
    assert gallery.exists()
    assert gallery.as_uri() in str(artifacts["openi-gallery"]["data"])
    assert run["name"] == "openi · rules/lexicon/context · atlas/hounsfield"
    assert {"build", "openi"} <= set(run["tags"])  # type: ignore[call-overload]
    tasks = prefect.post("task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert len(tasks) == 28
    assert any(task["name"] == "clean openi/train/part-00002" for task in tasks)
    assert all("openi" in task["tags"] for task in tasks)  # type: ignore[operator]


def test_a_published_taxonomy_is_followed(prefect: Prefect, home: Path, tmp_path: Path) -> None:
    """After the test above: the store holds openi, and its deployment has been run."""
    packaged = (REPOSITORY / "taxonomy" / "targets.yaml").read_text()
    synonyms = "synonyms: [PTX, pnx, pleural air"
    assert packaged.count(synonyms) == 1
    file = tmp_path / "targets.yaml"
    file.write_text(packaged.replace(synonyms, f"{synonyms}, air in the pleural space"))
    published = prefect.vividmed("taxonomy", "publish", str(file), "--store", str(home / "store"))
    assert published.returncode == 0, published.stdout + published.stderr
    assert "told the Prefect server" in published.stdout

    deadline = time.monotonic() + 240
    while True:
        runs = prefect.post("flow_runs/filter", {"flows": {"name": {"any_": ["reannotate"]}}})
        if runs and all(run["state_type"] in ("COMPLETED", "FAILED", "CRASHED") for run in runs):
            break
        assert time.monotonic() < deadline, runs
        time.sleep(1)
    assert [run["state_type"] for run in runs] == ["COMPLETED"]
    [state] = json.loads(prefect.vividmed("status", "openi", "--json").stdout)
    assert state["complete"]
    assert state["taxonomy_is_current"]
    versions = sorted((home / "store" / "snapshots" / "openi").glob("0*.json"))
    assert len(versions) == 2


def test_a_language_model_is_for_the_workers_with_a_gpu(prefect: Prefect) -> None:
    deployments = {str(row["name"]): row for row in prefect.post("deployments/filter", {})}
    assert {name: row["work_pool_name"] for name, row in deployments.items()} == {
        "on-taxonomy-change": "cpu",
        "openi": "cpu",
        "openi-llama": "gpu",
        "showcase": "cpu",
    }
    deployed = deployments["openi-llama"]["parameters"]
    config = REPOSITORY / "configs" / "llama-3-70b-vllm.yaml"
    assert deployed == {"settings": {"dataset": "openi"} | yaml.safe_load(config.read_text())}


def test_a_wrong_parameter_fails_before_any_work(prefect: Prefect) -> None:
    wrong = '{"settings": {"dataset": "openi", "shard_size": 0}}'
    result = prefect.run(
        "deployment", "run", "build-grounded-reports/openi", "--params", wrong, "--watch"
    )
    assert result.returncode != 0
    assert "shard_size" in result.stdout + result.stderr
