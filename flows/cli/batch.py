"""`vividmed batch`: requests for a language model as a batch file of vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.model_inputs import language_model, studies_of
from flows.cli.options import (
    DatasetArgument,
    JsonOption,
    LimitOption,
    SectionsOption,
    SourceOption,
    StoreOption,
    given,
    out,
)


def batch(
    dataset: DatasetArgument,
    requests: Annotated[Path, typer.Argument(help="File to write, the input of vllm run-batch.")],
    config: Annotated[Path, typer.Option(help="YAML file with the section `llm.batch`.")],
    store: StoreOption = None,
    source: SourceOption = None,
    limit: LimitOption = None,
    require_sections: SectionsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the requests that still lack an answer as a batch file of vLLM."""
    from flows.cli.json_output import print_json
    from tasks.engines.llm.chat.batch_file import write_requests
    from tasks.engines.llm.chat_choice import batch_answers
    from tasks.pipeline.batch_rounds import unanswered_requests
    from tasks.pipeline.settings import SettingsError, read_settings
    from tasks.pipeline.taxonomies import taxonomy_of

    options = given(
        dataset=dataset,
        store=store,
        source=source,
        limit=limit,
        require_sections=require_sections,
    )
    settings = read_settings(config, options)
    llm = language_model(settings)
    if llm.batch is None:
        raise SettingsError("the configuration has no section `llm.batch`: see configs/")
    answers = batch_answers(llm.batch)
    missing = unanswered_requests(
        studies_of(settings), settings, llm, answers, taxonomy_of(settings)
    )
    written = write_requests(requests, missing, llm.batch) if missing else 0
    if as_json:
        place = {"file": str(requests) if written else None, "requests": written}
        print_json({"dataset": settings.dataset, "answers": dict(answers.usage)} | place)
        return
    if used := answers.usage:
        damaged = f"; lines that cannot be read: {used['damaged_lines']:,}"
        out.print(
            f"answers so far: {used['requests']:,}, of {used['tokens_in']:,} tokens in and "
            f"{used['tokens_out']:,} out{damaged if used['damaged_lines'] else ''}"
        )
    if not written:
        out.print(f"nothing is left to ask: run `vividmed build {settings.dataset}` likewise")
        return
    out.print(f"{written:,} requests written to {requests}; next:")
    out.print(f"  vllm run-batch -i {requests} -o ANSWERS.jsonl --model {llm.batch.model}")
    out.print(f"  put the answers where {llm.batch.answers} finds them, and run this command again")
