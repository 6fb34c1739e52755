"""The `vividmed` command.

Heavy libraries are imported by the command that needs them, so that help and status answer at
once. A mistake of the user ends in one sentence and exit code 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from storage.inputs import InputError, home

if TYPE_CHECKING:
    from tasks.pipeline.settings import BuildSettings

app = typer.Typer(
    name="vividmed",
    help="Turn radiology images and reports into visually grounded reports.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models = typer.Typer(help="Look at checkpoints.", no_args_is_help=True)
app.add_typer(models, name="model")
out = Console(markup=False, emoji=False)  # texts of reports and users are shown as they are

StoreOption = Annotated[
    str | None, typer.Option("--store", help="Folder or s3:// URI of the store.")
]
ConfigOption = Annotated[
    Path | None, typer.Option(help="YAML file with settings; see configs/ for examples.")
]
SourceOption = Annotated[Path | None, typer.Option(help="Folder with the dataset's own files.")]
LimitOption = Annotated[int | None, typer.Option(help="Only the first reports.")]
ShardSizeOption = Annotated[int | None, typer.Option(help="Reports per shard.")]
SectionsOption = Annotated[
    str | None, typer.Option(help="Sections a report must have: both or any.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def main() -> None:
    """Entry point: run the command and turn known errors into a sentence."""
    try:
        app()
    except Exception as error:
        if isinstance(error, _user_errors()):
            message = Text.assemble(("error: ", "red"), str(error))
            Console(stderr=True).print(message, soft_wrap=True)
            sys.exit(1)
        raise


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors whose message was written for the user; the others are bugs and keep their trace."""
    from storage.catalogue import CatalogueError
    from storage.datasets.reader import DatasetError
    from storage.images.types import ImageError
    from storage.store import StoreError
    from tasks.engines.llm.chat.engine import EngineError
    from tasks.pipeline.settings import SettingsError
    from taxonomy.targets import TaxonomyError

    return (
        CatalogueError,
        DatasetError,
        EngineError,
        ImageError,
        InputError,
        SettingsError,
        StoreError,
        TaxonomyError,
        *_errors_of_models(),
    )


def _errors_of_models() -> list[type[Exception]]:
    # Their modules may need PyTorch; an error of a module that nobody imported was not raised.
    homes = {
        "model.inference.errors": "InferenceError",
        "model.checkpoints.weights": "CheckpointError",
    }
    return [getattr(sys.modules[home], name) for home, name in homes.items() if home in sys.modules]


@app.command()
def build(
    datasets: Annotated[list[str], typer.Argument(help="openi, showcase")],
    config: ConfigOption = None,
    store: StoreOption = None,
    source: SourceOption = None,
    limit: LimitOption = None,
    shard_size: ShardSizeOption = None,
    require_sections: SectionsOption = None,
    keep_uncertain: Annotated[
        bool, typer.Option(help="Count hedged findings as positive, as the paper's prompts do.")
    ] = False,
) -> None:
    """Build the grounded reports of one or more datasets; what is done already is skipped."""
    from flows.cli.build import build_datasets

    given: dict[str, Any] = {
        "store": store,
        "source": source and str(source),
        "limit": limit,
        "shard_size": shard_size,
        "require_sections": require_sections,
        "positive": ("present", "uncertain") if keep_uncertain else None,
    }
    build_datasets(datasets, config, {k: v for k, v in given.items() if v is not None}, out)


@app.command()
def plan(
    dataset: Annotated[str, typer.Argument(help="openi, showcase")],
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
) -> None:
    """Show what the language model will be asked, before anything runs."""
    from flows.cli.planning import show_plan
    from tasks.pipeline.request_plan import Throughput

    given = {"store": store, "limit": limit, "require_sections": require_sections}
    settings = _settings(config, source, dataset=dataset, shard_size=shard_size, **given)
    show_plan(settings, Throughput(tokens_in_per_second, tokens_out_per_second), tokenizer, out)


@app.command()
def batch(
    dataset: Annotated[str, typer.Argument(help="openi, showcase")],
    requests: Annotated[Path, typer.Argument(help="File to write, the input of vllm run-batch.")],
    config: Annotated[Path, typer.Option(help="YAML file with the section `llm.batch`.")],
    store: StoreOption = None,
    source: SourceOption = None,
    limit: LimitOption = None,
    require_sections: SectionsOption = None,
) -> None:
    """Write what is left to ask a language model as a batch file of vLLM."""
    from flows.cli.planning import write_batch

    given = {"store": store, "limit": limit, "require_sections": require_sections}
    settings = _settings(config, source, dataset=dataset, **given)
    write_batch(settings, requests, out)


def _settings(config: Path, source: Path | None, **given: Any) -> BuildSettings:
    """A configuration with what was given by hand on top."""
    from tasks.pipeline.settings import read_settings

    given["source"] = source and str(source)
    return read_settings(config, {k: v for k, v in given.items() if v is not None})


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Inputs; all if none.")] = None,
) -> None:
    """Fetch the real inputs into the cache, each checked against its SHA-256."""
    from storage import inputs

    known = inputs.artefacts()
    if unknown := set(names or ()) - set(known):
        raise InputError(f"there is no input {sorted(unknown)[0]}: choose from {', '.join(known)}")
    fetched = inputs.fetch(list(names or known), out.print)
    out.print(f"{fetched} fetched, {len(names or known) - fetched} already in {home() / 'inputs'}")


@app.command()
def status(
    dataset: Annotated[str, typer.Argument(help="One dataset; all if none.")] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the store holds: rows in, rows out and rejects of every stage."""
    from flows.cli.tables import print_accounts
    from storage.store import Store, StoreError
    from tasks.pipeline.run_summary import stored_accounts

    place = Store(store or str(home() / "store"))
    accounts = stored_accounts(place, dataset)
    if not accounts:
        what = dataset or "anything"
        raise StoreError(f"{place.root} does not hold {what} yet: run `vividmed build` first")
    if as_json:
        typer.echo(json.dumps([a.as_json() for a in accounts], indent=1))
    else:
        print_accounts(accounts, out)


@app.command()
def show(
    study: Annotated[str, typer.Argument(help="Study id, for example chest-ct-nodule.")],
    store: StoreOption = None,
) -> None:
    """Show the grounded report of a study: text, tags, boxes and masks."""
    from flows.cli.reading import show_study

    show_study(_store_root(store), study, out)


@app.command()
def tag(
    text: Annotated[str, typer.Argument(help="Any report text, or - for standard input.")],
    as_json: JsonOption = False,
) -> None:
    """Show what the text steps make of any text: phrases, targets, assertions."""
    from flows.cli.reading import show_tagged, tag_text

    piped = text == "-"
    result = tag_text(sys.stdin.buffer.read().decode(errors="replace") if piped else text)
    if as_json:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        show_tagged(result, out)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="A DuckDB query over the tables of the store.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Query the catalogue; `vividmed sql "SHOW TABLES"` lists its views."""
    from flows.cli.tables import rows_table
    from storage.catalogue import query_rows

    columns, rows = query_rows(_store_root(store), query)
    if as_json:
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        typer.echo(json.dumps(records, indent=1, ensure_ascii=False, default=str))
    else:
        out.print(rows_table(columns, rows))


@app.command()
def audit(
    dataset: Annotated[str, typer.Argument(help="openi; or sentences: the packaged gold.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the text steps: on a built dataset against its labels, or on gold sentences."""
    from flows.cli.gold import audit_sentences
    from flows.cli.reading import audit_dataset

    if dataset == "sentences":
        audit_sentences(out, as_json=as_json)
        return
    audit_dataset(_store_root(store), dataset, out, as_json=as_json)


@app.command()
def taxonomy(
    name: Annotated[str, typer.Argument(help="A target, or words to search for.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="Check this file instead of the packaged one.")
    ] = None,
) -> None:
    """Look up targets: category, parents, synonyms, and what can ground them."""
    from flows.cli.reading import show_taxonomy

    show_taxonomy(name, file, out)


@app.command()
def predict(
    images: Annotated[
        list[Path], typer.Argument(help="DICOM, PNG, JPEG, NIfTI; folders of a DICOM series.")
    ],
    model: Annotated[Path | None, typer.Option(help="Folder of a trained model.")] = None,
    task: Annotated[
        Literal["report", "detect", "vqa"], typer.Option(help="What to ask of each image.")
    ] = "report",
    prompt: Annotated[
        str | None,
        typer.Option(help="vqa: the question; detect: targets, separated by commas."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for JSON, masks (NIfTI, PNG) and overlays.")
    ] = None,
    grounded: Annotated[
        bool | None,
        typer.Option("--grounded/--plain", help="Point at what the text names; not for vqa."),
    ] = None,
    pointing: Annotated[
        Literal["by-category", "masks", "boxes", "both"],
        typer.Option(help="By category: masks for anatomy, boxes for abnormalities."),
    ] = "by-category",
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability above which a box counts.")
    ] = 0.5,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 1024,
    store: Annotated[
        str | None, typer.Option(help="Also write grounded reports to this store (path or URI).")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="Name of the predictions in the store.")
    ] = "predictions",
    as_json: JsonOption = False,
) -> None:
    """Write grounded reports of images with a trained model, or ask it about them."""
    from flows.cli.predict import Request, predict_images
    from model.inference.prompts import ask

    request = Request(
        images=images,
        question=ask(task, prompt, grounded=grounded),
        model=model,
        folder=output,
        pointing=pointing,
        threshold=threshold,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        store=store,
        dataset=dataset,
    )
    predict_images(request, out, as_json=as_json)


@models.command()
def check(
    path: Annotated[Path, typer.Argument(help="A checkpoint's folder or file.")],
    config: Annotated[
        str | None, typer.Option(help="paper, tiny, mid, or a folder with a config.json.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a checkpoint's tensors with our model's, without loading them."""
    from flows.cli.model_check import check_checkpoint

    if not check_checkpoint(path, config, out, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def doctor(store: StoreOption = None) -> None:
    """Check this installation: versions, inputs, store, taxonomy, room on the disk."""
    from flows.cli.doctor import examine

    if not examine(store or str(home() / "store"), out):
        raise typer.Exit(1)


def _store_root(store: str | None) -> str:
    return store or str(home() / "store")
