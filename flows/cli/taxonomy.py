"""`vividmed taxonomy`: look up targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import JsonOption, out

if TYPE_CHECKING:
    from taxonomy.targets import Target, Taxonomy


def taxonomy(
    name: Annotated[str, typer.Argument(help="A target, or words to search for.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="Check this file instead of the packaged one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look up targets: category, who names them, parents, synonyms, and what can ground them."""
    from flows.cli.fitting import print_table
    from flows.cli.json_output import print_records
    from flows.cli.near_misses import perhaps
    from flows.cli.tables import rows_table
    from taxonomy.targets import TaxonomyError, load_taxonomy

    loaded = load_taxonomy(file)
    found = _search(loaded, name) if name else dict.fromkeys(loaded.targets, "")
    if not found:
        known = [word for target in loaded.targets.values() for word in _words(target)]
        raise TaxonomyError(
            f"no target is called “{name}”{perhaps(name, known)}; `vividmed taxonomy` lists all of "
            "them"
        )
    targets = {loaded[target]: how for target, how in found.items()}
    if as_json:
        print_records(asdict(target) | {"found_as": how} for target, how in targets.items())
        return
    for target, how in targets.items():
        if how:
            out.print(f"{how}: {target.name}", highlight=False)
    rows = [
        (
            target.name,
            target.category,
            target.origin,
            ", ".join(target.parents),
            ", ".join(target.synonyms),
            _classes(target),
        )
        for target in targets
    ]
    columns = ("target", "category", "named by", "parents", "synonyms", "grounded by")
    print_table(rows_table(columns, rows), out)
    out.print(f"{len(rows)} of {len(loaded.targets)} targets; digest {loaded.digest('all')[:12]}")


def _search(loaded: Taxonomy, words: str) -> dict[str, str]:
    """The targets that words name or are part of, with how they were found: empty for a name."""
    if words.casefold() in loaded:
        return {words.casefold(): ""}
    found: dict[str, str] = {}
    for target, how in (*_named(loaded, words), *_containing(loaded, words)):
        found.setdefault(target, how)
    return found


def _named(loaded: Taxonomy, words: str) -> Iterator[tuple[str, str]]:
    """What the step extract finds in the words: by synonyms, plurals, similar spelling, grammar."""
    from tasks.engines.text.lexicon import LexiconExtractor
    from taxonomy.words import phrase_key

    [phrases] = LexiconExtractor(loaded).extract([words])
    for phrase in phrases:
        said = words[phrase.start : phrase.end]
        key = phrase_key(said)
        same = [word for word in _words(loaded[phrase.target]) if phrase_key(word) == key]
        if phrase.match == "fuzzy":
            yield phrase.target, f"“{said}” is spelled like a word for"
        elif same and same[0] != phrase.target:
            yield phrase.target, f"“{same[0]}” is a synonym of"
        else:
            yield phrase.target, f"“{said}” in a report names"


def _containing(loaded: Taxonomy, words: str) -> Iterator[tuple[str, str]]:
    """Targets with the words in their name, or in a synonym."""
    part = words.casefold()
    for target in loaded.targets.values():
        if part in target.name.casefold():
            yield target.name, ""
    for target in loaded.targets.values():
        for synonym in target.synonyms:
            if part in synonym.casefold():
                yield target.name, f"“{synonym}” is a synonym of"


def _words(target: Target) -> tuple[str, ...]:
    return (target.name, *target.synonyms)


def _classes(target: Target) -> str:
    classes = {
        "VinDr-CXR": target.vindr,
        "SAT": target.sat,
        "TotalSegmentator": target.totalsegmentator,
    }
    return ", ".join(f"{model} {name}" for model, name in classes.items() if name)
