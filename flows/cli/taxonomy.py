"""`vividmed taxonomy`: look up targets, and compare two taxonomies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from flows.cli.options import JsonOption, StoreOption, out, rule, store_root

if TYPE_CHECKING:
    from taxonomy.targets import Target, Taxonomy


class _LookUp(TyperGroup):
    """Looks a target up where the first word is no command of the group."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [word for word in args if not word.startswith("-")]
        asks_for_help = not words and set(args) & set(ctx.help_option_names)
        if not asks_for_help and (not words or words[0] not in self.commands):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_LookUp, help="Look up targets, as `taxonomy WORDS`, or compare two taxonomies."
)


@app.command()
def show(
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


@app.command()
def diff(
    old: Annotated[
        Path | None,
        typer.Argument(help="The taxonomy as it was; unless given, the one of each data set held."),
    ] = None,
    new: Annotated[
        Path | None, typer.Argument(help="As it is; the packaged one, unless given.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what changed from one taxonomy to another, target by target."""
    from flows.cli.json_output import print_records
    from tasks.pipeline.taxonomies import as_chosen_in
    from taxonomy.diff import diff as changes_of
    from taxonomy.targets import load_taxonomy

    today = load_taxonomy(new)
    if old:
        changes = {"": changes_of(load_taxonomy(old), today)}
    else:
        changes = {
            name: changes_of(kept, as_chosen_in(kept, today))
            for name, kept in _of_store(store_root(store))
        }
    if as_json:
        print_records(
            {"dataset": name or None} | asdict(change)
            for name, found in changes.items()
            for change in found
        )
        return
    for name, found in changes.items():
        if name:
            rule(name)
        for line in [str(change) for change in found] or ["no change"]:
            out.print(line, highlight=False, soft_wrap=True)


@app.command()
def impact(
    file: Annotated[
        Path | None,
        typer.Argument(help="The taxonomy as it shall be; the store's own, unless given."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="One data set; all of the store, if none.")] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a taxonomy would change in a store and what that costs, before anything runs."""
    from flows.cli.json_output import print_records
    from storage.plans import read_holdings
    from storage.store import Store
    from tasks.pipeline.forecast import forecast
    from tasks.pipeline.taxonomies import as_chosen_in, taxonomy_of_store
    from taxonomy.targets import load_taxonomy

    place = Store(store_root(store))
    new = load_taxonomy(file) if file else taxonomy_of_store(place)
    holdings = {holding.dataset: holding for holding in read_holdings(place, dataset)}
    found = [
        forecast(place, holdings[name], kept, as_chosen_in(kept, new))
        for name, kept in _of_store(place.root)
        if name in holdings
    ]
    if as_json:
        print_records(cost.as_json() for cost in found)
        return
    for cost in found:
        rule(cost.dataset)
        for line in cost.lines():
            out.print(line, highlight=False, soft_wrap=True)


@app.command()
def publish(
    file: Annotated[
        Path | None, typer.Argument(help="The taxonomy; the packaged one, unless given.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Make a taxonomy the one of a store: data sets are annotated again where it differs."""
    from flows.runtime.prefect_defaults import quiet_prefect
    from storage.store import Store
    from tasks.pipeline.taxonomies import outdated
    from tasks.pipeline.taxonomies import publish as publish_in
    from taxonomy.targets import load_taxonomy

    taxonomy = load_taxonomy(file)
    place = Store(store_root(store))
    place.require_writable()
    digest = publish_in(place, taxonomy)
    old = outdated(place, taxonomy)
    out.print(f"published in {place.root}: {len(taxonomy.targets)} targets, digest {digest[:12]}")
    out.print(f"annotated with other targets: {', '.join(old) or 'no data set'}", highlight=False)
    quiet_prefect()  # before Prefect is imported
    from flows.runtime.taxonomy_events import tell_published

    if address := tell_published(place.root, digest):
        out.print(f"told the Prefect server at {address}", soft_wrap=True)
    elif old:
        out.print("`vividmed reannotate` annotates again what has changed", highlight=False)


def _of_store(root: str) -> list[tuple[str, Taxonomy]]:
    """The taxonomies that a store was built with, by data set."""
    from storage.snapshots import current
    from storage.store import Store, StoreError
    from tasks.pipeline.taxonomies import built_with

    found = [(name, kept) for name, of in built_with(current(Store(root))).items() for kept in of]
    if not found:
        raise StoreError(
            f"{root} keeps no taxonomy of a data set: give the earlier file, or build first"
        )
    return found


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
