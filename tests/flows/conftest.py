"""Runs of the real command and the real server, in a home of their own."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage import inputs
from tests.flows.forked_command import ForkedCommand

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty data folder that shares the real inputs with the repository's own."""
    try:
        inputs.fetch(["openi", "radiograph", "chest_ct", "totalsegmentator"])
    except inputs.InputError as error:
        pytest.skip(f"real inputs not to be had here: {error}")
    folder = tmp_path_factory.mktemp("home")
    (folder / "inputs").symlink_to(inputs.home() / "inputs")
    return folder


@pytest.fixture(scope="session")
def environment(home: Path) -> dict[str, str]:
    ours = {
        "VIVIDMED_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "COLUMNS": "120",
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "VIVIDMED_"))}
    return kept | ours


@pytest.fixture(scope="session")
def vividmed(environment: dict[str, str]) -> Iterator[Command]:
    """Runs the command as a user does and gives back what it printed."""
    with ForkedCommand(REPOSITORY) as command:

        def run(*arguments: str, stdin: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
            return command.run(arguments, environment | extra, stdin)

        yield run


@pytest.fixture(scope="session")
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
