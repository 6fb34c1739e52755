"""Writes a page for each data set that comes with this package, and their index.

    python -m docs.datasets

The pages are made from the declarations alone; a test holds that they are current.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from storage.datasets.declaration import FAMILIES, Declaration
from storage.datasets.registry import find_declaration, packaged_names

FOLDER = Path(__file__).parent
INDEX = "README.md"

_HEAD = (
    "<!-- Made from the declaration by `python -m docs.datasets`: change that, not this page. -->"
)


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    declarations = [find_declaration(name) for name in packaged_names()]
    texts = {f"{d.name}.md": "\n".join(_page(d)) + "\n" for d in declarations}
    return texts | {INDEX: "\n".join(_index(declarations)) + "\n"}


def _index(declarations: list[Declaration]) -> Iterator[str]:
    yield from (_HEAD, "", "# Data sets", "")
    yield (
        "Each is declared in `storage/datasets/declarations`. `vividmed doctor NAME FOLDER` tells "
        "what is missing of a download, `vividmed build NAME --source FOLDER` builds it. Your own "
        "archive needs neither page nor declaration: `vividmed ingest` "
        "([how](../own-archive.md))."
    )
    yield from ("", "| name | data set | images | studies | what is read | licence |")
    yield "|---|---|---|---|---|---|"
    for declared in declarations:
        studies = declared.counts.get("studies")
        cells = (
            f"[{declared.name}]({declared.name}.md)",
            declared.title,
            ", ".join(declared.modalities),
            f"{studies:,}" if studies is not None else "",
            _read(declared),
            declared.licence,
        )
        yield f"| {' | '.join(map(_cell, cells))} |"


def _page(declared: Declaration) -> Iterator[str]:
    yield from (_HEAD, "", f"# {declared.title}", "")
    yield from (f"`{declared.name}`", "", "## Where to get it", "")
    yield from _item("Access", declared.access)
    yield from _item("Home", declared.homepage)
    yield from _item("Licence", declared.licence)
    yield from _item("Cite", declared.citation)
    if declared.inputs:
        yield from _item("Fetched by", f"`vividmed fetch {' '.join(declared.inputs)}`")
    yield from ("", "## What the folder holds", "")
    yield from _files(declared)
    yield from ("", "## What is made of it", "")
    yield from _item("Build", _command(declared))
    yield from _item("Read", _read(declared))
    yield from _item("Images", ", ".join(declared.modalities))
    yield from _item("Splits", ", ".join(declared.splits))
    yield from _item("Reader", _reader(declared))
    yield from _item("Selection", ", then ".join(rule.rule for rule in declared.selection))
    if declared.paper:
        kept = ", ".join(f"{split} {n:,}" for split, n in declared.paper.kept.items())
        note = f"; {declared.paper.note}" if declared.paper.note else ""
        yield from _item("The paper kept", f"{kept} {declared.paper.unit}{note}")
    if declared.counts:
        yield from ("", "| official count | |", "|---|--:|")
        yield from (f"| {_cell(name)} | {count:,} |" for name, count in declared.counts.items())
    if declared.notes:
        yield from ("", "## Before it is used", "", " ".join(declared.notes.split()))
    if declared.targets:
        yield from ("", "## Targets", "", "| label of the data set | target |", "|---|---|")
        for label, target in declared.targets.items():
            yield f"| {_cell(label)} | {_cell(target or 'none: not in the taxonomy')} |"


def _files(declared: Declaration) -> Iterator[str]:
    if declared.files:
        yield from ("| path | what it is | |", "|---|---|---|")
        for file in declared.files:
            needed = "can be left out" if file.optional else "needed"
            yield f"| `{file.path}` | {_cell(file.what)} | {needed} |"
    elif declared.inputs:
        yield "The files are fetched; no folder is needed."
    else:
        yield "The declaration names no files."
    if declared.images_apart:
        places = " or ".join(f"`{place}`" for place in declared.images_apart)
        yield from ("", f"The images are a download of their own, below {places}.")


def _command(declared: Declaration) -> str:
    own = "" if declared.inputs else " --source FOLDER"
    return f"`vividmed build {declared.name}{own}`"


def _read(declared: Declaration) -> str:
    return "reports" if declared.reports else "images and what people marked"


def _reader(declared: Declaration) -> str:
    if declared.reader in FAMILIES:
        return f"the family `{declared.reader}`"
    module = declared.reader.partition(":")[0]
    return f"`storage/datasets/{module.removeprefix('.').replace('.', '/')}.py`"


def _item(name: str, value: str | None) -> Iterator[str]:
    if value:
        yield f"- {name}: {' '.join(value.split())}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Write all pages, and remove those of data sets that are gone."""
    made = pages()
    for file in FOLDER.glob("*.md"):
        if file.name not in made:
            file.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
