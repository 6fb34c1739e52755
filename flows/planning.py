"""Before a language model runs: what it will be asked (`plan`), and batch files for it."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from storage.datasets import dataset_source
from storage.datasets.reader import Study
from storage.inputs import fetch
from storage.store import Store
from tasks.llm.batch_file import write_requests
from tasks.llm.batching import unanswered_requests
from tasks.llm.plan import Plan, Throughput, plan_run
from tasks.llm.tokens import token_counter
from tasks.registry import chat_engine
from tasks.settings import BuildSettings, SettingsError, required_inputs
from taxonomy.targets import load_taxonomy


def show_plan(
    settings: BuildSettings,
    tokens_per_second: tuple[float, float],
    tokenizer: Path | None,
    out: Console,
) -> None:
    """Rehearse the text steps on a dataset and print what a model would be asked.

    Args:
        settings: with a section `llm`.
        tokens_per_second: read and written by one GPU, or group of GPUs that holds the model.
        tokenizer: the model's `tokenizer.json`; a stated rule of thumb without.
        out: where to print.

    Raises:
        SettingsError: if the settings name no language model.
    """
    if settings.llm is None:
        raise SettingsError("the configuration has no section `llm`: nothing to plan")
    plan = plan_run(
        _texts(settings, out),
        settings.llm.protocol,
        chat_engine(settings.llm).fingerprint,
        Store(settings.store),
        load_taxonomy(),
        settings.dataset,
        token_counter(tokenizer),
    )
    out.print(_plan_table(plan))
    hours = plan.gpu_hours(Throughput(*tokens_per_second))
    read, written = tokens_per_second
    out.print(
        f"about {hours:.2f} GPU hours at {read:,.0f} tokens read and {written:,.0f} written a "
        "second; the embedded engines rehearse the model's answers"
    )


def write_batch(settings: BuildSettings, requests: Path, out: Console) -> None:
    """Write what is left to ask as input of `vllm run-batch`, and say how to go on.

    Raises:
        SettingsError: if the settings do not name a model that is asked by batch files.
    """
    if settings.llm is None or settings.llm.batch is None:
        raise SettingsError("the configuration has no section `llm.batch`: see configs/")
    batch = settings.llm.batch
    missing = unanswered_requests(
        _texts(settings, out),
        settings.llm.protocol,
        batch,
        Store(settings.store),
        load_taxonomy(),
        settings.dataset,
    )
    if not missing:
        out.print(f"nothing is left to ask: run `vividmed build {settings.dataset}` with it")
        return
    written = write_requests(requests, missing, batch)
    out.print(f"{written.requests:,} requests written to {requests}; next:")
    out.print(f"  vllm run-batch -i {requests} -o ANSWERS.jsonl --model {batch.model}")
    out.print(f"  put the answers where {batch.answers} finds them, and run this command again")


def _texts(settings: BuildSettings, out: Console) -> list[str]:
    fetch(required_inputs(settings), out.print)
    source = dataset_source(settings.dataset, Path(settings.source) if settings.source else None)
    studies = source.reader.read(source.reader.records()[: settings.limit])
    sections = (
        text for s in studies if isinstance(s, Study) for text in (s.findings, s.impression)
    )
    return [text for text in sections if text]


def _plan_table(plan: Plan) -> Table:
    title = f"{plan.protocol}: {plan.sections:,} section texts"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("step")
    for name in ("units", "distinct", "known", "requests", "hits", "tokens in", "tokens out"):
        table.add_column(name, justify="right")
    for step in (*plan.steps, plan.total):
        numbers = (
            step.units,
            step.units_asked + step.units_remembered,
            step.units_remembered,
            step.requests,
            step.cache_hits,
            step.tokens_in,
            step.tokens_out,
        )
        table.add_row(step.step, *(f"{number:,}" for number in numbers))
    return table
