"""`vividmed audit`: the text steps against references that people and programs made."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.near_misses import complete_dataset, not_held
from flows.cli.options import JsonOption, StoreOption, out, store_root


def audit(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A data set with labels; or sentences: the packaged gold.",
            autocompletion=complete_dataset,
        ),
    ],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the text steps: on a built data set against its labels, or on gold sentences."""
    if dataset == "sentences":
        from flows.cli.gold import audit_sentences

        audit_sentences(out, as_json=as_json)
    else:
        _audit_dataset(store_root(store), dataset, as_json=as_json)


def _audit_dataset(root: str, dataset: str, *, as_json: bool) -> None:
    """Print the kept phrases' agreement with two references, even and odd reports apart.

    The references are the coders' MeSH headings and the collection's automatic tags; beside the
    second stands how far the coders agree with it.
    """
    from flows.cli.fitting import print_table
    from flows.cli.json_output import print_json
    from flows.cli.tables import audit_table, disagreement_lines
    from storage.catalogue import read_reports
    from storage.plans import read_holdings
    from storage.store import Store, StoreError
    from tasks.audit.automatic import audit_automatic, audit_coders
    from tasks.audit.disagreements import disagreements
    from tasks.audit.mesh import audit as audit_mesh
    from tasks.audit.mesh import is_coded
    from taxonomy.targets import load_taxonomy

    held = {holding.dataset for holding in read_holdings(Store(root))}
    if dataset not in held:
        raise not_held(Store(root), dataset, "sentences")
    tables = read_reports(root, dataset)
    if not is_coded(tables["studies"]):
        raise StoreError(f"{dataset} has no MeSH coding to audit against: `audit openi` has")
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
