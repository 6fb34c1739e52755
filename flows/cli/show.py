"""`vividmed show`: the grounded report of a study."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, StoreOption, out, rule, store_root

if TYPE_CHECKING:
    from storage.records import MaskKey
    from storage.store import StoreError
    from storage.tables import Tables

GROUNDING_STYLES = {"box": "bold green", "mask": "bold green", "none": "yellow"}

_SIMILAR = 75
"""Least similarity, of 100, of ids that are suggested: one or two wrong characters of ten."""
_SUGGESTED = 3


def show(
    study: Annotated[str, typer.Argument(help="Study id, for example chest-ct-nodule.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the grounded report of a study: text, tags, boxes and masks."""
    from flows.cli.json_output import print_records
    from storage.store import Store
    from storage.sweeping import nothing_held
    from storage.tables import open_tables

    tables = open_tables(Store(store_root(store)))
    if not tables.shards:
        raise nothing_held(tables.store)
    reports, damaged = tables.rows_of_study("grounded_reports", study)
    for shard in damaged:
        typer.echo(f"note: {tables.sentence(shard)}", err=True)
    if not reports:
        raise _no_report(tables, study)
    if as_json:
        print_records(reports)
    else:
        _print_reports(tables, study, reports)


def _print_reports(tables: Tables, study: str, reports: list[dict[str, Any]]) -> None:
    from flows.cli.fitting import print_table
    from flows.cli.tables import highlighted, tag_table
    from storage.records import MaskKey

    volumes: dict[tuple[Any, ...], dict[MaskKey, float | None]] = defaultdict(dict)
    if any(tag["mask"] for report in reports for tag in report["tags"]):
        for row in tables.rows_of_study("masks", study)[0]:
            volumes[_image(row)][MaskKey.from_row(row)] = row["volume_mm3"]
    for images, report in _by_content(reports):
        provenance = report["provenance"]
        rule(f"{report['dataset']} · {report['study_id']} · {', '.join(images)}")
        spans = [(t["start"], t["end"], GROUNDING_STYLES[t["grounding"]]) for t in report["tags"]]
        out.print(highlighted(report["text"], spans))
        print_table(tag_table(report["tags"], volumes[_image(report)]), out)
        engines = ("cleaner", "extractor", "filter", "localizer")
        made_by = ", ".join(f"{name} {provenance[name]}" for name in engines if provenance[name])
        out.print(f"source {provenance['source']}; {made_by}; {provenance['notice']}", style="dim")


def _no_report(tables: Tables, study: str) -> StoreError:
    """Why there is no report: the study was rejected, or there is none of this id."""
    from rapidfuzz import fuzz, process

    from storage.store import StoreError

    root = tables.store.root
    rejects, _ = tables.rows_of_study("rejects", study)
    ids = tables.study_ids()
    if rejects and not _has_passed(rejects):
        first = rejects[0]
        return StoreError(
            f"{first['dataset']} {study} has no grounded report, it was rejected by "
            f"{first['stage']}: {first['reason']}: {first['detail']}"
        )
    if study in ids and (name := _without_reports(tables, study)):
        return StoreError(
            f"{study} is of {name}, which has no reports and is only ingested: `vividmed sql` "
            "shows its rows, in `studies` and in the tables of what people marked"
        )
    if study in ids:
        return StoreError(
            f"{root} holds no grounded report of {study} yet: `vividmed status` shows what is "
            "missing"
        )
    found = process.extract(
        study,
        ids,
        scorer=fuzz.ratio,
        processor=str.casefold,
        limit=_SUGGESTED,
        score_cutoff=_SIMILAR,
    )
    meant = " or ".join(f"`{name}`" for name, *_ in found)
    hint = f"perhaps {meant} was meant" if meant else "`vividmed sql` can list those in `studies`"
    return StoreError(f"{root} holds no study {study}: {hint}")


def _without_reports(tables: Tables, study: str) -> str | None:
    """The data set of a study, if its plan makes no reports."""
    from storage.plans import read_plan

    for row in tables.rows_of_study("studies", study)[0]:
        plan = read_plan(tables.store, row["dataset"])
        if plan is not None and "assemble" not in plan.stages:
            return str(row["dataset"])
    return None


def _has_passed(rejects: Iterable[dict[str, Any]]) -> bool:
    """Whether only parts of the study were rejected, such as a phrase or a site."""
    return all(row["target"] or row["section"] or row["image_id"] for row in rejects)


def _image(row: dict[str, Any]) -> tuple[Any, ...]:
    """The columns that tell apart images of all data sets."""
    return row["dataset"], row["split"], row["image_id"]


def _by_content(reports: list[dict[str, Any]]) -> Iterable[tuple[list[str], dict[str, Any]]]:
    """Images whose grounded reports are the same, as those without a file are, with the report."""
    groups: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for report in reports:
        images, _ = groups.setdefault(json.dumps(report["tags"]), ([], report))
        images.append(report["image_id"] or "no image to ground in")
    return groups.values()
