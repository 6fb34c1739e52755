"""Clean + extract + filter on OpenI, beside medspaCy with the same targets, on one core.

medspaCy (sentence splitter, target matcher, ConText; Eyre et al. 2021) runs in a separate
environment, because it needs older libraries; both process the same reports in the same run.
VividMed also cleans, adds sides and zones, and caches sentences; the second comparison is of
reports of 500 characters that share no sentence, where no cache is hit. medspaCy processes samples,
because all reports would take it a minute. Seconds are CPU seconds of the process, which do not
depend on the load of the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from benchmarks.targets import judge
from storage.datasets.reader import Study
from storage.datasets.registry import find_declaration
from storage.inputs import fetch, home, input_path
from storage.records import Assertion
from tasks.annotate import annotate_texts
from tasks.pipeline.engine_choice import choose_engines
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import Taxonomy, load_taxonomy

RIVAL = "medspacy==1.3.1"
SAMPLE = 500
RUNS = 3
CHARACTERS = 500
"""Length of a report that is made of sentences which no other one has."""


def main() -> int:
    """Measure both and print the table; 1 if a target is missed."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, for both
    reports = _reports()
    taxonomy = load_taxonomy()
    table = Table(title=f"Text steps, {len(reports)} OpenI reports, one core", title_justify="left")
    for name in ("engine", "reports", "CPU seconds", "reports/s", *get_args(Assertion)):
        table.add_column(name, justify="left" if name == "engine" else "right")

    fresh = ProcessPoolExecutor(
        max_workers=1, mp_context=get_context("spawn"), max_tasks_per_child=1
    )  # a cache filled by one run must not speed up the next
    with fresh:
        runs = list(fresh.map(_ours, [reports] * RUNS))
        unlike = _without_repetition(reports)
        distinct = sorted(fresh.map(_ours, [unlike] * RUNS), key=lambda run: run[0])[RUNS // 2]
    seconds, found = sorted(runs, key=lambda run: run[0])[RUNS // 2]
    figures: dict[str, float] = {}
    _row(table, "vividmed: clean + extract + filter", len(reports), seconds, found)
    _row(table, f"the same, {CHARACTERS} characters, no sentence twice", len(unlike), *distinct)
    try:
        for name, texts, ours_s in (
            ("times the speed of medspaCy", reports, seconds),
            ("times the speed of medspaCy, no sentence twice", unlike, distinct[0]),
        ):
            sample = texts[:SAMPLE]
            rival_s, by_rival = _rival(sample, taxonomy)
            _row(table, f"{RIVAL}: targets + ConText", len(sample), rival_s, by_rival)
            figures[name] = (len(texts) / ours_s) / (len(sample) / rival_s)
    except subprocess.CalledProcessError as error:
        table.add_row(f"{RIVAL}: skipped", error.stderr.strip().splitlines()[-1])
    Console().print(table)
    return judge("text_steps", figures)


def _reports() -> list[str]:
    fetch(["openi"])
    reader = find_declaration("openi").open(input_path("openi/NLMCXR_reports.tgz").parent)
    studies = [s for s in reader.read(reader.records()) if isinstance(s, Study)]
    texts = (" ".join(t for t in (s.findings, s.impression) if t) for s in studies)
    return [text for text in texts if text]


def _ours(reports: list[str]) -> tuple[float, Counter[str]]:
    taxonomy = load_taxonomy()
    engines = choose_engines(BuildSettings(dataset="openi"), taxonomy)
    annotate_texts(["The lungs are clear."], engines, taxonomy)  # late imports, as the rival's
    started = time.process_time()
    found = annotate_texts(reports, engines, taxonomy)
    seconds = time.process_time() - started
    return seconds, Counter(found.positives["assertion"].to_pylist())


def _without_repetition(reports: list[str]) -> list[str]:
    """Reports of about 500 characters made of the sentences, each of which is used once."""
    sentences = dict.fromkeys(
        " ".join(sentence.split()) for report in reports for sentence in report.split(". ")
    )
    made: list[str] = []
    report = ""
    for sentence in filter(None, sentences):
        report += f"{sentence.rstrip('.')}. "
        if len(report) >= CHARACTERS:
            made.append(report.rstrip())
            report = ""
    return made


def _rival(reports: list[str], taxonomy: Taxonomy) -> tuple[float, Counter[str]]:
    rules = [
        (words, target.name)
        for target in taxonomy.targets.values()
        for words in (target.name, *target.synonyms)
    ]
    python = _environment()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as work:
        json.dump({"reports": reports, "rules": rules}, work)
        work.flush()
        script = Path(__file__).with_name("medspacy_rival.py")
        result = subprocess.run(
            [python, script, work.name], capture_output=True, text=True, check=True
        )
    answer = json.loads(result.stdout.splitlines()[-1])
    return answer["seconds"], Counter(answer["found"])


def _environment() -> Path:
    folder = home() / "bench" / "medspacy"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", RIVAL],
        ):
            subprocess.run(command, capture_output=True, text=True, check=True)
        (folder / "ready").touch()
    return python


def _row(table: Table, name: str, reports: int, seconds: float, found: Counter[str]) -> None:
    counts = (str(found[a]) for a in get_args(Assertion))
    table.add_row(name, str(reports), f"{seconds:.2f}", f"{reports / seconds:,.0f}", *counts)


if __name__ == "__main__":
    sys.exit(main())
