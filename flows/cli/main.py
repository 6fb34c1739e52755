"""The `vividmed` command.

A command is one module of this folder. Its heavy libraries are imported when it runs, so that help
and status answer at once. A mistake of the user ends in one sentence and exit code 1.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from flows.cli.audit import audit
from flows.cli.batch import batch
from flows.cli.build import build
from flows.cli.catalogue import catalogue
from flows.cli.changes import changes
from flows.cli.doctor import doctor
from flows.cli.fetch import fetch
from flows.cli.ingest import ingest
from flows.cli.model_check import check
from flows.cli.plan import plan
from flows.cli.predict import predict
from flows.cli.preview import preview
from flows.cli.reannotate import reannotate
from flows.cli.show import show
from flows.cli.snapshots import rollback, snapshots
from flows.cli.sql import sql
from flows.cli.status import status
from flows.cli.streams import OutputError, finish, prepare
from flows.cli.tag import tag
from flows.cli.taxonomy import app as taxonomy
from storage.inputs import InputError

app = typer.Typer(
    name="vividmed",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    ingest,
    build,
    plan,
    batch,
    fetch,
    reannotate,
    changes,
    status,
    show,
    tag,
    sql,
    catalogue,
    snapshots,
    rollback,
    audit,
    predict,
    preview,
    doctor,
):
    app.command()(command)
models = typer.Typer(help="Inspect checkpoints.", no_args_is_help=True)
models.command()(check)
app.add_typer(models, name="model")
app.add_typer(taxonomy, name="taxonomy")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vividmed {version('vividmed')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Turn radiology images and reports into visually grounded reports."""


def main() -> None:
    """Entry point: run the command and turn known errors into a sentence."""
    prepare()
    try:
        try:
            app()
        finally:
            finish()
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
    from storage.images.limits import LimitsError
    from storage.images.types import ImageError
    from storage.reasons import UnknownReasonError
    from storage.store import StoreError
    from tasks.engines.llm.chat.engine import EngineError
    from tasks.engines.protocols import EngineAnswerError
    from tasks.pipeline.settings import SettingsError
    from taxonomy.targets import TaxonomyError

    return (
        CatalogueError,
        DatasetError,
        EngineAnswerError,
        EngineError,
        ImageError,
        InputError,
        LimitsError,
        OutputError,
        SettingsError,
        StoreError,
        TaxonomyError,
        UnknownReasonError,
        *_errors_of_modules(),
    )


def _errors_of_modules() -> list[type[Exception]]:
    # Their modules need Prefect or PyTorch; an error of one that nobody imported was not raised.
    ours = __name__.removesuffix("flows.cli.main")
    homes = {
        f"{ours}flows.runtime.prefect_server": "PrefectServerError",
        f"{ours}model.inference.errors": "InferenceError",
        f"{ours}model.checkpoints.weights": "CheckpointError",
    }
    return [getattr(sys.modules[home], name) for home, name in homes.items() if home in sys.modules]
