"""The audit: phrases kept as positive against the MeSH tags that people gave the same reports.

OpenI's radiologist-coders tagged every report by hand (`MeSH/major`; Demner-Fushman et al. 2016).
`mesh_targets.tsv` says which tag names which target. The collection's automatic tags are a
reference of their own (`automatic.py`).

Both sides are closed upwards over the taxonomy (a rib fracture is a fracture), so a report that
is coded more narrowly than it is worded is no mistake. Reports that were never coded ("No
Indexing") are left out; those that cleaning rejected are not, so that an engine that rejects hard
reports gains nothing by it. Even report numbers are the development half; the odd half is scored
apart and never read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.audit.scores import Audit, score_halves
from taxonomy.targets import Taxonomy

MANUAL_TAG = "mesh_major:"
"""Prefix of a hand-given tag in `studies.labels`."""

_NOT_CODED = "No Indexing"


@dataclass(frozen=True, slots=True)
class TagRule:
    """A MeSH heading, the qualifiers it must and must not have, and the target it then names."""

    heading: str
    required: frozenset[str]
    excluded: frozenset[str]
    target: str
    note: str


@cache
def load_tag_rules() -> tuple[TagRule, ...]:
    """The rules of `mesh_targets.tsv`, read once."""
    with Path(__file__).with_name("mesh_targets.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    return tuple(
        TagRule(
            row["heading"],
            _qualifiers(row["with"]),
            _qualifiers(row["without"]),
            row["target"],
            row["note"],
        )
        for row in rows
    )


def _qualifiers(cell: str) -> frozenset[str]:
    return frozenset(q for q in cell.split(" & ") if q)


def is_coded(studies: pa.Table) -> bool:
    """Whether any study carries the manual coding as labels."""
    return any(manual_tags(labels) for labels in studies["labels"].to_pylist())


def manual_tags(labels: Iterable[Mapping[str, Any]] | None) -> list[str]:
    """The hand-given tags among a study's labels; none where the report was not coded."""
    given = [label["name"] for label in labels or ()]
    tags = [name.removeprefix(MANUAL_TAG) for name in given if name.startswith(MANUAL_TAG)]
    return [] if _NOT_CODED in tags else tags


def coded_targets(tags: Iterable[str], rules: Sequence[TagRule]) -> set[str]:
    """Targets that tags like "Fractures, Bone/ribs/left" name."""
    named: set[str] = set()
    for tag in tags:
        heading, *qualifiers = (part.strip() for part in tag.split("/"))
        given = {q.lower() for q in qualifiers}
        named |= {
            rule.target
            for rule in rules
            if rule.heading == heading and rule.required <= given and not rule.excluded & given
        }
    return named


def audit(
    studies: pa.Table,
    reports: pa.Table,
    positives: pa.Table,
    taxonomy: Taxonomy,
    rules: Sequence[TagRule] | None = None,
) -> Audit:
    """Score the positives of reports against the reports' hand-given tags.

    Args:
        studies: the reports to score (`storage.schemas.STUDIES`); those that were not coded are
            left out.
        reports: those that cleaning kept (`storage.schemas.CLEAN_REPORTS`).
        positives: the phrases kept (`storage.schemas.POSITIVES`); other reports' are ignored.
        taxonomy: for the hierarchy; every target of a rule must be in it.
        rules: which tag names which target; those of `mesh_targets.tsv` by default.
    """
    rules = load_tag_rules() if rules is None else rules
    coded = {}
    for study in studies.select(["study_id", "labels"]).to_pylist():
        if tags := manual_tags(study["labels"]):
            coded[study["study_id"]] = coded_targets(tags, rules)
    covered = reports["study_id"].to_pylist()
    scored = {rule.target for rule in rules}
    return score_halves(coded, found_targets(positives), covered, scored, taxonomy)


def found_targets(positives: pa.Table) -> dict[str, set[str]]:
    """The targets kept as positive, by study id."""
    found: dict[str, set[str]] = {}
    kept = positives.select(["study_id", "target"]).to_pydict()
    for study_id, target in zip(kept["study_id"], kept["target"], strict=True):
        found.setdefault(study_id, set()).add(target)
    return found
