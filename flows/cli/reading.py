"""What the reading commands print: `show`, `tag`, `taxonomy`, `audit`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from flows.cli.tables import (
    ASSERTION_STYLES,
    audit_table,
    disagreement_lines,
    highlighted,
    phrase_table,
    rows_table,
    tag_table,
)
from storage.catalogue import read_reports, study_rows
from storage.store import StoreError
from tasks.annotate import annotate_texts
from tasks.audit.automatic import audit_automatic, audit_coders
from tasks.audit.disagreements import disagreements
from tasks.audit.mesh import audit
from tasks.pipeline.engine_choice import choose_engines
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import Target, TaxonomyError, load_taxonomy

GROUNDING_STYLES = {"box": "bold green", "mask": "bold green", "none": "yellow"}


def tag_text(text: str) -> dict[str, Any]:
    """Clean, extract and classify a text with the embedded engines.

    Offsets are code points into `text`, which is the cleaned text.
    """
    taxonomy = load_taxonomy()
    engines = choose_engines(BuildSettings(dataset="openi"), taxonomy)
    found = annotate_texts([text], engines, taxonomy)
    [report] = found.reports.to_pylist() or [{"findings": "", "removed": [text] if text else []}]
    names = ("start", "end", "phrase", "target", "category", "assertion")
    return {
        "text": report["findings"],
        "removed": report["removed"],
        "phrases": [
            {name: row[name] for name in names} | row["modifiers"]
            for row in found.positives.to_pylist()
        ],
    }


def show_tagged(result: dict[str, Any], out: Console) -> None:
    """Print what `tag_text` found."""
    for passage in result["removed"]:
        out.print(f"removed or rewritten: {passage}", style="dim", highlight=False, markup=False)
    spans = [(p["start"], p["end"], ASSERTION_STYLES[p["assertion"]]) for p in result["phrases"]]
    out.print(highlighted(result["text"], spans))
    if result["phrases"]:
        out.print(phrase_table(result["phrases"]))
    else:
        out.print("no target of the taxonomy is named")


def show_study(root: str, study: str, out: Console) -> None:
    """Print the grounded reports of a study, one per image.

    Raises:
        StoreError: if the store has no such study.
    """
    reports = study_rows(root, "grounded_reports", study)
    if not reports:
        raise StoreError(
            f"{root} holds no grounded report of {study}: `vividmed sql` can list the studies of "
            "grounded_reports, and what was rejected and why in rejects"
        )
    volumes = {row["target"]: row["volume_mm3"] for row in study_rows(root, "masks", study)}
    for images, report in _by_content(reports):
        provenance = report["provenance"]
        out.rule(f"{report['dataset']} · {report['study_id']} · {', '.join(images)}")
        spans = [(t["start"], t["end"], GROUNDING_STYLES[t["grounding"]]) for t in report["tags"]]
        out.print(highlighted(report["text"], spans))
        out.print(tag_table(report["tags"], volumes))
        engines = ("cleaner", "extractor", "filter", "localizer")
        made_by = ", ".join(f"{name} {provenance[name]}" for name in engines if provenance[name])
        out.print(f"source {provenance['source']}; {made_by}; {provenance['notice']}", style="dim")


def _by_content(reports: list[dict[str, Any]]) -> Iterable[tuple[list[str], dict[str, Any]]]:
    """Images whose grounded reports are the same, as those without a file are, with the report."""
    groups: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for report in reports:
        images, _ = groups.setdefault(json.dumps(report["tags"]), ([], report))
        images.append(report["image_id"] or "no image to ground in")
    return groups.values()


def show_taxonomy(name: str, file: Path | None, out: Console) -> None:
    """Print one target in full, or the targets whose names hold the words given.

    Raises:
        TaxonomyError: if the file is not a valid taxonomy, or no target has that name.
    """
    taxonomy = load_taxonomy(file)
    found = [t for t in taxonomy.targets.values() if name.lower() in t.name.lower()]
    exact = [t for t in found if t.name == name.lower()]
    if not found:
        raise TaxonomyError(f"no target is called “{name}”; `vividmed taxonomy` lists all of them")
    rows = [
        (
            target.name,
            target.category,
            ", ".join(target.parents),
            ", ".join(target.synonyms),
            _classes(target),
        )
        for target in exact or found
    ]
    out.print(rows_table(("target", "category", "parents", "synonyms", "grounded by"), rows))
    out.print(
        f"{len(rows)} of {len(taxonomy.targets)} targets; digest {taxonomy.digest('all')[:12]}"
    )


def _classes(target: Target) -> str:
    classes = {
        "VinDr-CXR": target.vindr,
        "SAT": target.sat,
        "TotalSegmentator": target.totalsegmentator,
    }
    return ", ".join(f"{model} {name}" for model, name in classes.items() if name)


def audit_dataset(root: str, dataset: str, out: Console, *, as_json: bool) -> None:
    """Print the kept phrases' agreement with two references, even and odd reports apart.

    The references are the coders' MeSH headings and the collection's automatic tags; beside the
    second stands how far the coders agree with it.

    Raises:
        StoreError: if the dataset is not in the store, or has no MeSH coding.
    """
    if dataset != "openi":
        raise StoreError(f"{dataset} has no MeSH coding to audit against: `audit openi` has")
    tables = read_reports(root, dataset)
    taxonomy = load_taxonomy()
    steps = (tables["studies"], tables["clean_reports"], tables["positives"], taxonomy)
    by_coders, automatic = audit(*steps), audit_automatic(*steps)
    coders = audit_coders(tables["studies"], taxonomy)
    if as_json:
        references = {
            "automatic": automatic.as_json(),
            "coders_against_automatic": coders.as_json(),
        }
        typer.echo(json.dumps(by_coders.as_json() | references, indent=1))
        return
    out.print(audit_table(by_coders, "the coders' MeSH headings"))
    out.print(audit_table(automatic, "the automatic tags"))
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
