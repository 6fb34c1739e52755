"""`make bench`: run all benchmarks one after another, each in its own process.

A missed target does not stop the others; a table at the end lists the missed targets.

Name some to run only those: `python -m benchmarks mask_codec text_steps`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.targets import MET, MISSED, NOT_MEASURED

# Golden outputs first: figures of a run that changes results mean little.
BENCHMARKS = (
    "golden",
    "mask_codec",
    "text_steps",
    "audit",
    "hounsfield",
    "registration",
    "atlas",
    "orchestration",
    "pipelining",
    "datasets",
    "reannotation",
    "llm_tokens",
    "llm_client",
    "packed_training",
    "generation_cache",
)


class Outcome(NamedTuple):
    """Exit code and time of a benchmark, and the lines that it printed about its targets."""

    name: str
    code: int
    seconds: float
    verdicts: tuple[str, ...]

    def row(self) -> tuple[str, ...]:
        """Cells of the table: name, seconds, targets met, and problems."""
        met = sum(line.startswith(MET) for line in self.verdicts)
        problems = [line for line in self.verdicts if not line.startswith(MET)]
        if self.code and not any(line.startswith(MISSED) for line in problems):
            problems.append(f"ended with exit code {self.code}")
        share = f"{met} of {len(self.verdicts)}" if self.verdicts else "–"
        return self.name, f"{self.seconds:.0f}", share, "\n".join(problems)


def main() -> int:
    """Run the benchmarks and print a summary; 1 if one missed a target or failed."""
    outcomes = [_run(name) for name in sys.argv[1:] or BENCHMARKS]
    table = Table(title="Targets", title_justify="left")
    table.add_column("benchmark")
    table.add_column("seconds", justify="right")
    table.add_column("met", justify="right")
    table.add_column("problems")
    for outcome in outcomes:
        table.add_row(*outcome.row())
    print()
    Console().print(table)
    return int(any(outcome.code for outcome in outcomes))


def _run(name: str) -> Outcome:
    """Run a benchmark, and show its output while it runs."""
    print(f"\n=== {name}", flush=True)
    width = str(shutil.get_terminal_size((100, 24)).columns)
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}"],
        env=os.environ | {"COLUMNS": width, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        lines = [_echoed(line) for line in process.stdout or ()]
    verdicts = tuple(line for line in lines if line.startswith((MET, MISSED, NOT_MEASURED)))
    return Outcome(name, process.returncode, time.monotonic() - started, verdicts)


def _echoed(line: str) -> str:
    print(line, end="", flush=True)
    return line.rstrip("\n")


if __name__ == "__main__":
    sys.exit(main())
