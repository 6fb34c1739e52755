"""Before a language model runs: what it will be asked (`plan`), and batch files for it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from rich.console import Console

from flows.cli.tables import duration, model_table
from storage.datasets import dataset_source
from storage.inputs import fetch
from tasks.engines.llm.chat.batch_file import write_requests
from tasks.engines.llm.chat.tokens import token_counter
from tasks.engines.llm.chat_choice import batch_answers
from tasks.engines.llm.settings import LlmSettings
from tasks.ingest import ingest_studies
from tasks.pipeline.batch_rounds import unanswered_requests
from tasks.pipeline.request_plan import Throughput, plan_run
from tasks.pipeline.settings import BuildSettings, SettingsError, required_inputs
from tasks.pipeline.stages import parts_of
from taxonomy.targets import load_taxonomy


def show_plan(
    settings: BuildSettings, throughput: Throughput, tokenizer: Path | None, out: Console
) -> None:
    """Rehearse the text steps on a dataset and print what a model would be asked.

    Args:
        settings: with a section `llm`.
        throughput: of one GPU, or group of GPUs that holds the model.
        tokenizer: the model's `tokenizer.json`; a stated rule of thumb without.
        out: where to print.

    Raises:
        SettingsError: if no step of the settings asks a language model.
    """
    llm = _model(settings)
    usage = plan_run(
        _shards(settings, out), settings, llm, load_taxonomy(), token_counter(tokenizer)
    )
    for step in usage.values():
        step["busy_us"] = round(1e6 * throughput.seconds(step))
    out.print(model_table(f"{settings.dataset}: what {llm.protocol} will ask", usage))
    total_s = sum(step["busy_us"] for step in usage.values()) / 1e6
    speed = f"{throughput.tokens_in_per_second:,.0f} tokens read and "
    speed += f"{throughput.tokens_out_per_second:,.0f} written a second"
    out.print(
        f"about {duration(total_s)} of GPU time at {speed}; the embedded engines rehearse the "
        "model's answers. After a run `vividmed status` shows the same figures, measured"
    )


def write_batch(settings: BuildSettings, requests: Path, out: Console) -> None:
    """Write what is left to ask as input of `vllm run-batch`, and say how to go on.

    Raises:
        SettingsError: if the settings do not name a model that is asked by batch files.
        EngineError: if a batch file cannot be read or written.
    """
    llm = _model(settings)
    if llm.batch is None:
        raise SettingsError("the configuration has no section `llm.batch`: see configs/")
    answers = batch_answers(llm.batch)
    missing = unanswered_requests(_shards(settings, out), settings, llm, answers, load_taxonomy())
    if used := answers.usage:
        damaged = f"; lines that cannot be read: {used['damaged_lines']:,}"
        out.print(
            f"answers so far: {used['requests']:,}, of {used['tokens_in']:,} tokens in and "
            f"{used['tokens_out']:,} out{damaged if used['damaged_lines'] else ''}"
        )
    if not missing:
        out.print(f"nothing is left to ask: run `vividmed build {settings.dataset}` likewise")
        return
    written = write_requests(requests, missing, llm.batch)
    out.print(f"{written:,} requests written to {requests}; next:")
    out.print(f"  vllm run-batch -i {requests} -o ANSWERS.jsonl --model {llm.batch.model}")
    out.print(f"  put the answers where {llm.batch.answers} finds them, and run this command again")


def _model(settings: BuildSettings) -> LlmSettings:
    if settings.llm is None or not settings.asks_language_model:
        raise SettingsError(
            "no text step asks a language model: the configuration needs a section `llm`, and "
            "cleaner, extractor or filter set to `llm`"
        )
    return settings.llm


def _shards(settings: BuildSettings, out: Console) -> list[pa.Table]:
    """The `studies` of every part that a build would make."""
    fetch(required_inputs(settings), out.print)
    source = dataset_source(settings.dataset, Path(settings.source) if settings.source else None)
    records = source.reader.records()[: settings.limit]
    parts = parts_of(settings.dataset, records, settings.shard_size or source.shard_size)
    return [ingest_studies(part, source.reader, own).rows for part, own in parts.items()]
