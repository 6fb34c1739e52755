"""Small stores written by hand, stage by stage, as a run leaves them."""

from collections.abc import Mapping
from typing import Any

from storage.manifests import Manifest, write_manifest
from storage.shards import Part, ShardFile, shard_path, table_from_rows, write_shard
from storage.store import Store

Rows = list[dict[str, Any]]

STAGES = {
    "ingest": ("studies", ()),
    "clean": ("clean_reports", ("ingest",)),
    "extract": ("phrases", ("clean",)),
    "filter": ("positives", ("clean", "extract")),
    "detect": ("boxes", ("ingest", "filter")),
    "segment": ("masks", ("ingest", "filter")),
    "assemble": ("grounded_reports", ("ingest", "clean", "filter", "detect", "segment")),
}
"""The stages by name: the table that each writes, and the stages that it reads."""


def write_stage(
    store: Store,
    stage: str,
    part: Part,
    rows: Rows,
    inputs: Mapping[str, str],
    gold: Mapping[str, Rows] | None = None,
) -> str:
    """Write the rows of a stage, gold rows by table, no rejects and the manifest.

    The digest of the stage's own shard is given back.
    """
    table, _ = STAGES[stage]
    outputs: dict[str, ShardFile] = {}
    for name, content in ((table, rows), ("rejects", []), *(gold or {}).items()):
        path = shard_path(name, part, stage)
        outputs[name] = write_shard(store, path, name, table_from_rows(name, content))
    count = len(rows)
    manifest = Manifest(stage, part, "d", {"version": 1}, inputs, outputs, "row", count, count)
    write_manifest(store, manifest)
    return outputs[table].sha256


def write_part(
    store: Store,
    part: Part,
    studies: list[str],
    records: str = "r",
    until: str = "assemble",
    gold: Mapping[str, Rows] | None = None,
) -> None:
    """All stages of a part, or those up to one: a study is a row of every table but masks."""
    made: dict[str, str] = {}
    for stage, (table, reads) in STAGES.items():
        inputs = {f"{name}.{STAGES[name][0]}": made[name] for name in reads}
        if stage == "ingest":
            inputs = {"records": records}
        rows = [row_of(table, part, study) for study in studies if table != "masks"]
        of_stage = gold if stage == "ingest" else None
        made[stage] = write_stage(store, stage, part, rows, inputs, of_stage)
        if stage == until:
            return


def row_of(table: str, part: Part, study_id: str) -> dict[str, Any]:
    """A row of a study with what its table cannot do without."""
    key = {"dataset": part.dataset, "split": part.split, "study_id": study_id}
    site = {"target": "pleural effusion", "laterality": "left", "zones": []}
    words = {
        "section": "findings",
        "start": 0,
        "end": 8,
        "phrase": "Effusion",
        "target": "pleural effusion",
        "category": "abnormality",
        "modifiers": {"laterality": "left", "zones": ["lower"], "count": None},
        "match": "exact",
    }
    corners = {"x_min": 1.0, "y_min": 2.0, "x_max": 3.0, "y_max": 4.0, "score": 0.5}
    slab = corners | {"z_min": 5.0, "z_max": 6.0}
    made = {"source": "authored", "cleaner": "rules 1", "notice": "research use"}
    tag = {name: words[name] for name in ("start", "end", "phrase", "target", "category")}
    own: dict[str, dict[str, Any]] = {
        "studies": {"findings": "Effusion.", "labels": [{"name": "effusion", "value": 1}]},
        "clean_reports": {"findings": "Effusion.", "status": "unchanged", "removed": []},
        "phrases": words,
        "positives": words | {"assertion": "present"},
        "boxes": site | slab | {"image_id": "ct", "instance": 0, "detector": "d"},
        "grounded_reports": {
            "image_id": "ct",
            "text": "Effusion.",
            "tags": [tag | site | {"grounding": "box", "boxes": [slab]}],
            "provenance": made,
        },
    }
    return key | own[table]
