"""`vividmed fetch`: download the real inputs."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import JsonOption, notes, out
from storage import inputs


def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Inputs; all if none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch the real inputs into the cache, each checked against its SHA-256."""
    from flows.cli.json_output import print_json
    from flows.cli.near_misses import perhaps

    known = inputs.artefacts()
    if unknown := set(names or ()) - set(known):
        name = min(unknown)
        raise inputs.InputError(
            f"there is no input {name}{perhaps(name, known)}: choose from {', '.join(known)}"
        )
    wanted = list(names or known)
    fetched = inputs.fetch(wanted, notes.print)
    folder = inputs.home() / "inputs"
    if as_json:
        print_json({"folder": folder, "inputs": wanted, "fetched": fetched})
    else:
        out.print(f"{fetched} fetched, {len(wanted) - fetched} already in {folder}")
