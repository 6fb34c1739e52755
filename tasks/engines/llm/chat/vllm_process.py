"""vLLM as a child process of a run, in vLLM's own environment.

vLLM needs other versions of fastapi and transformers than this project, so no environment holds
both: `make setup-vllm` makes one for vLLM, whose Python runs the server here. It listens on
this machine alone, and ends with the run, also when the run is killed (`run_with_parent`).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from storage.inputs import home
from tasks.engines import run_with_parent
from tasks.engines.llm.chat.engine import EngineError
from tasks.engines.llm.chat.settings import VllmSettings

_HOST = "127.0.0.1"
_LINES_QUOTED = 3
"""Of the log, where vLLM's last line says why it ended."""

_LONGEST_LINE = 300
"""Characters of a line of the log that are quoted."""

_LOG_BYTES_READ = 20_000
"""At the end of the log; errors of vLLM are followed by tracebacks of several processes."""

_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
"""vLLM reports statistics of its use over the internet unless told not to."""


class VllmProcess:
    """A vLLM server that this process started.

    base_url: its address. log: the file of its output.
    """

    def __init__(self, settings: VllmSettings) -> None:
        """Start it; it loads the weights for minutes before it answers.

        Raises:
            EngineError: if vLLM's environment is not there.
        """
        python = python_of(settings)
        port = _free_port()
        self.base_url = f"http://{_HOST}:{port}/v1"
        self.log = _new_log()
        command = [os.fspath(python), "-m", "vllm.entrypoints.cli.main"]
        command += ["serve", settings.model, *serve_arguments(settings, port)]
        guard = os.fspath(Path(run_with_parent.__file__))
        with self.log.open("wb") as output:
            self._guard = subprocess.Popen(
                [sys.executable, guard, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=os.environ | _ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is for the run, which then closes the pipe
            )

    def why_ended(self) -> str:
        """A sentence if the server has ended: its exit code and last words; else empty."""
        code = self._guard.poll()
        if code is None:
            return ""
        said = " / ".join(_last_lines(self.log))
        return (
            f"vLLM, which this run started, has ended with exit code {code} ({said}): its log is "
            f"{self.log}; what was answered so far is kept."
        )

    def stop(self) -> None:
        """End the server and wait until it is gone."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()


def python_of(settings: VllmSettings) -> Path:
    """The Python of vLLM's environment.

    Raises:
        EngineError: if it is not there.
    """
    python = (settings.python or home() / "vllm" / "bin" / "python").expanduser()
    if not python.exists():
        raise EngineError(
            f"vLLM's environment has no {python}: run `make setup-vllm`, name the Python of "
            "another one in `llm.vllm.python`, or use `llm.server` for a server elsewhere."
        )
    return python


def serve_arguments(settings: VllmSettings, port: int) -> list[str]:
    """The arguments of `vllm serve MODEL`."""
    options: dict[str, object] = {
        "served_model_name": settings.model,
        "host": _HOST,
        "port": port,
        "dtype": settings.dtype,
        "tensor_parallel_size": settings.tensor_parallel_size,
    }
    if settings.seed is not None:
        options["seed"] = settings.seed
    if settings.data_parallel_size > 1:
        options["data_parallel_size"] = settings.data_parallel_size
    for name in ("max_model_len", "quantization", "revision"):
        if (value := getattr(settings, name)) is not None:
            options[name] = value
    if settings.revision is not None:
        options["tokenizer_revision"] = settings.revision
    options |= {"enable_prefix_caching": True, **settings.engine_options}
    return list(as_arguments(options))


def as_arguments(options: dict[str, object]) -> Iterator[str]:
    """Options as vLLM's command line has them: `--no-` for false, JSON for structures."""
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif value is not None:
            structured = isinstance(value, dict | list)
            yield f"--{flag}={json.dumps(value) if structured else value}"


def _new_log() -> Path:
    folder = home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"vllm-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _last_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_BYTES_READ))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return [line[:_LONGEST_LINE] for line in lines if line][-_LINES_QUOTED:] or ["no output"]
