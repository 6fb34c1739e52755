"""`vividmed plan`: what a language model will be asked, before it runs."""

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
    ShardSizeOption,
    SourceOption,
    StoreOption,
    given,
    out,
)


def plan(
    dataset: DatasetArgument,
    config: Annotated[Path, typer.Option(help="YAML file with the section `llm`.")],
    store: StoreOption = None,
    source: SourceOption = None,
    limit: LimitOption = None,
    shard_size: ShardSizeOption = None,
    require_sections: SectionsOption = None,
    tokens_in_per_second: Annotated[
        float, typer.Option(min=1, help="Tokens that one GPU (or group of GPUs) reads a second.")
    ] = 20_000,
    tokens_out_per_second: Annotated[
        float, typer.Option(min=1, help="Tokens it writes a second, many requests at a time.")
    ] = 1_500,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json of the model; a rule of thumb without.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the language model will be asked, before anything runs."""
    from flows.cli.fitting import print_table
    from flows.cli.json_output import print_json
    from flows.cli.tables import duration, model_table
    from tasks.engines.llm.chat.tokens import token_counter
    from tasks.pipeline.request_plan import Throughput, plan_run
    from tasks.pipeline.settings import read_settings
    from tasks.pipeline.taxonomies import taxonomy_of

    options = given(
        dataset=dataset,
        store=store,
        source=source,
        limit=limit,
        shard_size=shard_size,
        require_sections=require_sections,
    )
    settings = read_settings(config, options)
    llm = language_model(settings)
    shards = studies_of(settings)
    usage = plan_run(shards, settings, llm, taxonomy_of(settings), token_counter(tokenizer))
    throughput = Throughput(tokens_in_per_second, tokens_out_per_second)
    for step in usage.values():
        step["busy_us"] = round(1e6 * throughput.seconds(step))
    total_s = sum(step["busy_us"] for step in usage.values()) / 1e6
    if as_json:
        steps = {name: dict(step) for name, step in usage.items()}
        rates = {
            "tokens_in_per_second": tokens_in_per_second,
            "tokens_out_per_second": tokens_out_per_second,
        }
        found = {"dataset": settings.dataset, "protocol": llm.protocol, "steps": steps}
        print_json(found | {"gpu_s": total_s} | rates)
        return
    print_table(model_table(f"{settings.dataset}: what {llm.protocol} will ask", usage), out)
    out.print(
        f"about {duration(total_s)} of GPU time at {tokens_in_per_second:,.0f} tokens read and "
        f"{tokens_out_per_second:,.0f} written a second; the embedded engines stand in for the "
        "model's answers. After a run `vividmed status` shows the same figures, measured"
    )
