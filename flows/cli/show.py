"""`vividmed show`: the grounded report of a study."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import StoreOption, out, store_root

if TYPE_CHECKING:
    from storage.records import MaskKey

GROUNDING_STYLES = {"box": "bold green", "mask": "bold green", "none": "yellow"}


def show(
    study: Annotated[str, typer.Argument(help="Study id, for example chest-ct-nodule.")],
    store: StoreOption = None,
) -> None:
    """Show the grounded report of a study: text, tags, boxes and masks."""
    from flows.cli.tables import highlighted, tag_table
    from storage.catalogue import study_rows
    from storage.records import MaskKey
    from storage.store import StoreError

    root = store_root(store)
    reports = study_rows(root, "grounded_reports", study)
    if not reports:
        raise StoreError(
            f"{root} holds no grounded report of {study}: `vividmed sql` can list the studies in "
            "grounded_reports, and the rejected records with their reasons in rejects"
        )
    volumes: dict[tuple[Any, ...], dict[MaskKey, float | None]] = defaultdict(dict)
    for row in study_rows(root, "masks", study):
        volumes[_image(row)][MaskKey.from_row(row)] = row["volume_mm3"]
    for images, report in _by_content(reports):
        provenance = report["provenance"]
        out.rule(f"{report['dataset']} · {report['study_id']} · {', '.join(images)}")
        spans = [(t["start"], t["end"], GROUNDING_STYLES[t["grounding"]]) for t in report["tags"]]
        out.print(highlighted(report["text"], spans))
        out.print(tag_table(report["tags"], volumes[_image(report)]))
        engines = ("cleaner", "extractor", "filter", "localizer")
        made_by = ", ".join(f"{name} {provenance[name]}" for name in engines if provenance[name])
        out.print(f"source {provenance['source']}; {made_by}; {provenance['notice']}", style="dim")


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
