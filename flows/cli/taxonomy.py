"""`vividmed taxonomy`: look up targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import out

if TYPE_CHECKING:
    from taxonomy.targets import Target


def taxonomy(
    name: Annotated[str, typer.Argument(help="A target, or words to search for.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="Check this file instead of the packaged one.")
    ] = None,
) -> None:
    """Look up targets: category, who names them, parents, synonyms, and what can ground them."""
    from flows.cli.tables import rows_table
    from taxonomy.targets import TaxonomyError, load_taxonomy

    loaded = load_taxonomy(file)
    found = [t for t in loaded.targets.values() if name.lower() in t.name.lower()]
    exact = [t for t in found if t.name == name.lower()]
    if not found:
        raise TaxonomyError(f"no target is called “{name}”; `vividmed taxonomy` lists all of them")
    rows = [
        (
            target.name,
            target.category,
            target.origin,
            ", ".join(target.parents),
            ", ".join(target.synonyms),
            _classes(target),
        )
        for target in exact or found
    ]
    columns = ("target", "category", "named by", "parents", "synonyms", "grounded by")
    out.print(rows_table(columns, rows))
    out.print(f"{len(rows)} of {len(loaded.targets)} targets; digest {loaded.digest('all')[:12]}")


def _classes(target: Target) -> str:
    classes = {
        "VinDr-CXR": target.vindr,
        "SAT": target.sat,
        "TotalSegmentator": target.totalsegmentator,
    }
    return ", ".join(f"{model} {name}" for model, name in classes.items() if name)
