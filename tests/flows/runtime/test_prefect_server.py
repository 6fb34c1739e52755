"""Prefect's server: named but gone, behind a proxy, with a bad database, lost, left behind."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from flows.runtime.prefect_defaults import quiet_prefect
from flows.runtime.prefect_server import PrefectServer
from tests.flows.conftest import REPOSITORY, Command

DEAD = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""

SOCKS = "socks5://127.0.0.1:9"

RUN = """
import time, uuid
from flows.runtime.prefect_defaults import quiet_prefect
quiet_prefect()
from flows.runtime.prefect_server import open_server
from flows.runtime.signals import end_at_signals, end_when_lost

def work():
    server = open_server(print)
    end_when_lost(server)
    print(server.process and server.process.pid, flush=True)
    time.sleep(600)

end_at_signals(work)
"""

CLAIM = """
import sys, time, uuid
from prefect import flow, get_client
from prefect.runtime import flow_run
from flows.runtime.orphaned_runs import claim_run

@flow(name="claiming")
def claiming():
    claim_run(uuid.UUID(flow_run.get_id()), "claiming")
    with get_client(sync_client=True) as client:
        states = {str(run.id): run.state.type.value for run in client.read_flow_runs()}
    print(flow_run.get_id(), *[f"{run}={state}" for run, state in states.items()], flush=True)
    if "stay" in sys.argv:
        time.sleep(600)

claiming()
"""


def _environment(home: Path, **extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "VIVIDMED_"))}
    ours = {"PYTHONPATH": str(REPOSITORY), "VIVIDMED_HOME": str(home)}
    return kept | ours | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"} | extra


def _python(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, process.communicate()[1]
    return line


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server that is up, and its address."""
    home = tmp_path_factory.mktemp("home")
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.runtime.temporary_server"],
        env=_environment(home, PREFECT_HOME=str(home / "prefect")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{_line(process)}/api"
    while PrefectServer(address).fault():
        assert process.poll() is None
        time.sleep(0.2)
    yield address, process
    process.kill()
    process.wait()


def test_a_named_server_that_does_not_answer_is_a_mistake(vividmed: Command, home: Path) -> None:
    store = str(home / "stale")
    result = vividmed("build", "showcase", "--store", store, PREFECT_API_URL=f"{DEAD}/api")
    assert result.returncode == 1
    said = result.stderr.splitlines()[-1]
    assert said.startswith(f"error: no Prefect server answers at PREFECT_API_URL = {DEAD}")
    assert "or unset PREFECT_API_URL" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_temporary_server_begins_anew_and_never_outlives_its_run(tmp_path: Path) -> None:
    """Behind a proxy, with the database of a newer Prefect; then its run is killed."""
    (tmp_path / "prefect").mkdir()
    with closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES ('f0f0f0f0f0f0')")
        database.commit()
    proxies = {"HTTP_PROXY": DEAD, "http_proxy": DEAD, "ALL_PROXY": SOCKS, "all_proxy": SOCKS}
    run = _python(RUN, **_environment(tmp_path, **proxies))
    assert _line(run).startswith("Prefect's database could not be used: it is now ")
    child = psutil.Process(int(_line(run)))
    [aside] = (tmp_path / "prefect").glob("prefect.db.*.unusable")
    with closing(sqlite3.connect(aside)) as database:
        assert database.execute("SELECT * FROM alembic_version").fetchall() == [("f0f0f0f0f0f0",)]
    run.kill()
    run.communicate()
    assert psutil.wait_procs([child], timeout=30)[1] == []


ENDS = """
import time
from flows.runtime.prefect_defaults import quiet_prefect
quiet_prefect()
from flows.runtime import signals
signals._WATCH_SECONDS = 0.001
from flows.runtime.prefect_server import open_server
from flows.runtime.signals import end_at_signals, end_when_lost
end_at_signals(lambda: end_when_lost(open_server(print)))
"""


def test_a_run_that_ends_does_not_take_its_own_server_for_lost(tmp_path: Path) -> None:
    run = _python(ENDS, **_environment(tmp_path))
    assert run.communicate() == ("", "")
    assert run.returncode == 0
    assert not [*(tmp_path / "prefect").glob("temporary-server-*.log")]


def test_the_next_run_closes_the_one_that_was_killed(
    tmp_path: Path, server: tuple[str, subprocess.Popen[str]]
) -> None:
    environment = _environment(tmp_path, PREFECT_API_URL=server[0], PREFECT_HOME=str(tmp_path))
    killed, alive = (_python(CLAIM, "stay", **environment) for _ in range(2))
    killed_id, alive_id = (_line(run).split()[0] for run in (killed, alive))
    killed.kill()
    killed.communicate()
    next_run = _python(CLAIM, **environment)
    said = _line(next_run).split()
    assert f"{killed_id}=CRASHED" in said
    assert f"{alive_id}=RUNNING" in said
    for run in (alive, next_run):
        run.kill()
        run.communicate()


def test_a_run_ends_when_its_server_is_lost(
    tmp_path: Path, server: tuple[str, subprocess.Popen[str]]
) -> None:
    address, process = server
    run = _python(RUN, **_environment(tmp_path, PREFECT_API_URL=address))
    assert _line(run) == "None"
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert said.strip().startswith(f"Prefect's server at {address} was lost")
    assert "run the same command to go on" in said


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_hosts_that_need_no_proxy_are_kept(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable in [v for v in os.environ if v.startswith("PREFECT_")]:
        monkeypatch.setenv(variable, os.environ[variable])
    monkeypatch.setenv(name, "pacs.example, 127.0.0.1")
    quiet_prefect()
    assert os.environ[name].split(",")[0] == "pacs.example"
    assert {"127.0.0.1", "localhost"} <= {host.strip() for host in os.environ[name].split(",")}


@pytest.mark.parametrize("proxy", [SOCKS, "socks4://127.0.0.1:9", "nonsense://x"])
def test_a_proxy_of_a_kind_that_cannot_be_used_is_left_out(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for variable in ("ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", DEAD)
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert "ALL_PROXY" not in (PrefectServer(DEAD).fault() or "")  # none stands before loopback
    said: list[str] = []
    quiet_prefect(said.append)
    assert "ALL_PROXY" not in os.environ
    assert os.environ["HTTPS_PROXY"] == DEAD
    assert len(said) == 1
    assert said[0].startswith(f"ALL_PROXY = {proxy} is left out")
