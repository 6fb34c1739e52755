"""`vividmed audit`: what we made, against references that people and programs made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.near_misses import complete_dataset
from flows.cli.options import JsonOption, StoreOption, out, store_root

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.audit.references import ReferenceAudit


def audit(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A data set with labels or gold; or sentences: the packaged gold.",
            autocompletion=complete_dataset,
        ),
    ],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score what a build made against labels and gold of its data set, or on gold sentences."""
    if dataset == "sentences":
        from flows.cli.gold import audit_sentences

        audit_sentences(out, as_json=as_json)
    else:
        _audit_dataset(store_root(store), dataset, as_json=as_json)


def _audit_dataset(root: str, dataset: str, *, as_json: bool) -> None:
    """Print the scores against every reference that the data set has."""
    from flows.cli.near_misses import not_held
    from storage.catalogue import CatalogueError
    from storage.plans import read_holdings
    from storage.store import Store, StoreError
    from storage.tables import ShardError, open_tables
    from tasks.audit.mesh import is_coded
    from tasks.audit.references import COLUMNS, audit_references
    from taxonomy.targets import load_taxonomy

    held = {holding.dataset for holding in read_holdings(Store(root))}
    if dataset not in held:
        raise not_held(Store(root), dataset, "sentences")
    tables = open_tables(Store(root), dataset)

    def read(table: str, columns: Sequence[str]) -> pa.Table:
        try:
            return tables.read(table, dataset, columns)
        except ShardError as error:
            raise CatalogueError(str(error)) from error

    if "positives" not in tables.shards:
        raise StoreError(
            f"{dataset} has no reports, or they are not annotated yet: there is nothing of ours to "
            "score"
        )
    if is_coded(read("studies", ["labels"])):
        _audit_mesh(root, dataset, as_json=as_json)
        return
    held_rows = {name: read(name, columns) for name, columns in COLUMNS.items()}
    result = audit_references(held_rows, load_taxonomy())
    if result.is_empty:
        raise StoreError(
            f"{dataset} has nothing to audit against: no MeSH coding, no labels of a kind that is "
            "known, and no gold phrases, boxes or masks"
        )
    _print_references(result, as_json=as_json)


def _print_references(result: ReferenceAudit, *, as_json: bool) -> None:
    from flows.cli.fitting import print_table
    from flows.cli.json_output import print_json
    from flows.cli.tables import grounding_table, label_audit_table, phrase_audit_table

    if as_json:
        print_json(result.as_json())
        return
    for prefix, labels in result.labels.items():
        print_table(label_audit_table(labels, prefix), out)
        _say(
            "studies: those whose label is 1; uncertain: those whose label is -1, which are not "
            "scored; kept: those of them in which we keep the target."
        )
        if labels.unmapped:
            _say(f"Labels that name no target here: {', '.join(labels.unmapped)}.")
    if result.phrases is not None:
        by_study, by_sentence = result.phrases.studies, result.phrases.sentences
        print_table(phrase_audit_table(by_study, "studies", "share cleaned"), out)
        print_table(phrase_audit_table(by_sentence, "sentences", "share left as written"), out)
        _say(
            f"Not scored: sentences that cleaning took away or reworded, and "
            f"{result.phrases.unmapped:,} phrases whose label names no target."
        )
    for audit, what in ((result.boxes, "boxes"), (result.masks, "masks")):
        if audit is not None:
            print_table(grounding_table(audit, what), out)
            _say(
                f"n: gold {what}; none: those in images where we have none of the target; mean IoU "
                "and Dice; hit: share found at IoU ≥ 0.5, center: by the center; P: precision at "
                f"IoU ≥ 0.5. Not scored: {audit.unmapped:,} whose label names no target, "
                f"{audit.incomparable:,} on another grid."
            )


def _say(sentences: str) -> None:
    out.print(sentences, highlight=False, markup=False)


def _audit_mesh(root: str, dataset: str, *, as_json: bool) -> None:
    """Print the kept phrases' agreement with two references, even and odd reports apart.

    The references are the coders' MeSH headings and the collection's automatic tags; beside the
    second stands how far the coders agree with it.
    """
    from flows.cli.fitting import print_table
    from flows.cli.json_output import print_json
    from flows.cli.tables import audit_table, disagreement_lines
    from storage.catalogue import read_reports
    from tasks.audit.automatic import audit_automatic, audit_coders
    from tasks.audit.disagreements import disagreements
    from tasks.audit.mesh import audit as audit_mesh
    from taxonomy.targets import load_taxonomy

    tables = read_reports(root, dataset)
    taxonomy = load_taxonomy()
    steps = (tables["studies"], tables["clean_reports"], tables["positives"], taxonomy)
    by_coders, automatic = audit_mesh(*steps), audit_automatic(*steps)
    coders = audit_coders(tables["studies"], taxonomy)
    if as_json:
        references = {
            "automatic": automatic.as_json(),
            "coders_against_automatic": coders.as_json(),
        }
        print_json(by_coders.as_json() | references)
        return
    print_table(audit_table(by_coders, "the coders' MeSH headings"), out)
    print_table(audit_table(automatic, "the automatic tags"), out)
    out.print(
        "The coders themselves against the automatic tags, targets that both name: "
        f"micro-F1 {coders.even.micro_f1:.3f} even, {coders.odd.micro_f1:.3f} odd"
    )
    differences = disagreements(
        tables["studies"],
        tables["clean_reports"],
        tables["phrases"],
        tables["positives"],
        taxonomy,
    )
    out.print("Where the even half differs most often:")
    for line in disagreement_lines(differences):
        out.print(line, highlight=False, markup=False)
