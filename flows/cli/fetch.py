"""`vividmed fetch`: download the real inputs."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import out
from storage import inputs


def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Inputs; all if none.")] = None,
) -> None:
    """Fetch the real inputs into the cache, each checked against its SHA-256."""
    known = inputs.artefacts()
    if unknown := set(names or ()) - set(known):
        raise inputs.InputError(
            f"there is no input {sorted(unknown)[0]}: choose from {', '.join(known)}"
        )
    fetched = inputs.fetch(list(names or known), out.print)
    out.print(
        f"{fetched} fetched, {len(names or known) - fetched} already in {inputs.home() / 'inputs'}"
    )
