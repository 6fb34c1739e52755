"""The audit against the collection's automatic tags: a reference that people did not give.

The National Library of Medicine's indexing programs named the terms that each OpenI report states
as present (`MeSH/automatic`; Demner-Fushman et al. 2016). They err more often than the coders, but
in other places, and share none of our decisions. `automatic_targets.tsv` says which term names
which target. A report without any term states nothing; one that the coders left out ("No
Indexing") and that has no term is left out here too.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pyarrow as pa

from tasks.audit.mesh import coded_targets, found_targets, load_tag_rules, manual_tags
from tasks.audit.scores import Audit, score_halves
from taxonomy.targets import Taxonomy

AUTOMATIC_TAG = "mesh_automatic:"
"""Prefix of an automatic tag in `studies.labels`."""


@cache
def load_terms() -> Mapping[str, frozenset[str]]:
    """The targets of `automatic_targets.tsv` by term, in small letters; read once.

    Some targets may not be in the taxonomy: terms that it has not got yet.
    """
    targets: dict[str, set[str]] = {}
    with Path(__file__).with_name("automatic_targets.tsv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            targets.setdefault(row["tag"], set()).add(row["target"])
    return {term: frozenset(named) for term, named in targets.items()}


def audit_automatic(
    studies: pa.Table, reports: pa.Table, positives: pa.Table, taxonomy: Taxonomy
) -> Audit:
    """Score the positives of reports against the reports' automatic tags.

    Args:
        studies: the reports to score (`storage.schemas.STUDIES`).
        reports: those that cleaning kept (`storage.schemas.CLEAN_REPORTS`).
        positives: the phrases kept (`storage.schemas.POSITIVES`).
        taxonomy: for the hierarchy; terms whose target it has not are not scored.
    """
    covered = reports["study_id"].to_pylist()
    tagged = _tagged(studies, taxonomy)
    return score_halves(tagged, found_targets(positives), covered, _scored(taxonomy), taxonomy)


def audit_coders(studies: pa.Table, taxonomy: Taxonomy) -> Audit:
    """Score the coders' own tags against the automatic ones: how far the two references agree.

    Only targets that both references name are scored.
    """
    rules = load_tag_rules()
    tagged = _tagged(studies, taxonomy)
    by_coders = {
        study["study_id"]: coded_targets(manual_tags(study["labels"]), rules)
        for study in studies.select(["study_id", "labels"]).to_pylist()
    }
    scored = _scored(taxonomy) & {rule.target for rule in rules}
    return score_halves(tagged, by_coders, tagged, scored, taxonomy)


def _scored(taxonomy: Taxonomy) -> frozenset[str]:
    return frozenset(t for named in load_terms().values() for t in named if t in taxonomy)


def _tagged(studies: pa.Table, taxonomy: Taxonomy) -> dict[str, set[str]]:
    terms = load_terms()
    tagged: dict[str, set[str]] = {}
    for study in studies.select(["study_id", "labels"]).to_pylist():
        names = [label["name"] for label in study["labels"] or ()]
        tags = [n.removeprefix(AUTOMATIC_TAG).lower() for n in names if n.startswith(AUTOMATIC_TAG)]
        if tags or manual_tags(study["labels"]):
            named = (target for tag in tags for target in terms.get(tag, ()))
            tagged[study["study_id"]] = {target for target in named if target in taxonomy}
    return tagged
