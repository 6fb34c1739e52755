"""The audit against labels that a data set ships.

MIMIC-CXR has those of the labelers CheXpert and NegBio and, of its test split, of a radiologist;
CT-RATE has 18 classes. Such labels are 1 (present), 0 (absent), -1 (uncertain), or not given, where
the report does not mention a class: that counts as absent. `label_targets.tsv` says which label
names which target; labels that no row has are not scored. Both sides are closed upwards over the
taxonomy. A target that a study's labels hold uncertain is not scored in that study; how many of
these we keep as positive is counted apart.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.audit.scores import ReportScores, Score, closed
from taxonomy.targets import Taxonomy

_ROWS = 10_000
"""Studies whose labels are Python objects at once."""


@dataclass(frozen=True)
class LabelAudit:
    """The scores against the labels of one prefix.

    uncertain, uncertain_found: pairs of study and target that the labels hold uncertain, by
        target, and those of them that we keep as positive.
    unmapped: labels of that prefix that name no target here, by the studies that have them.
    """

    scores: ReportScores
    uncertain: Mapping[str, int]
    uncertain_found: Mapping[str, int]
    unmapped: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return self.scores.as_json() | {
            "uncertain": dict(self.uncertain),
            "uncertain_found": dict(self.uncertain_found),
            "unmapped": dict(self.unmapped),
        }


@cache
def load_label_targets() -> Mapping[str, Mapping[str, str]]:
    """The target of each label by prefix, from `label_targets.tsv`; read once."""
    found: dict[str, dict[str, str]] = {}
    with Path(__file__).with_name("label_targets.tsv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            for prefix in row["prefix"].split(" & "):
                found.setdefault(prefix, {})[row["label"]] = row["target"]
    return found


def audit_labels(
    studies: pa.Table,
    covered: Container[str],
    found: Mapping[str, Iterable[str]],
    taxonomy: Taxonomy,
) -> dict[str, LabelAudit]:
    """Score what we found in each study against its labels, by the prefix of the labels.

    Args:
        studies: their ids and labels (`storage.schemas.STUDIES`).
        covered: the studies whose report cleaning kept.
        found: the targets kept as positive, by study.
        taxonomy: for the hierarchy.
    """
    counts = {
        prefix: _Counts(targets, taxonomy) for prefix, targets in load_label_targets().items()
    }
    for batch in studies.select(["study_id", "labels"]).to_batches(_ROWS):
        for study in batch.to_pylist():
            for prefix, values in _by_prefix(study["labels"]).items():
                if prefix in counts:
                    name = study["study_id"]
                    counts[prefix].add(values, found.get(name, ()), name in covered)
    return {prefix: of_prefix.audit() for prefix, of_prefix in counts.items() if of_prefix.studies}


def _by_prefix(labels: Iterable[Mapping[str, Any]] | None) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for label in labels or ():
        prefix, _, name = label["name"].partition(":")
        found.setdefault(prefix, {})[name] = label["value"]
    return found


class _Counts:
    """What the studies agree on so far, for the labels of one prefix."""

    def __init__(self, targets: Mapping[str, str], taxonomy: Taxonomy) -> None:
        self.studies = 0
        self._covered = 0
        self._targets = targets
        self._taxonomy = taxonomy
        self._support: Counter[str] = Counter()
        self._predicted: Counter[str] = Counter()
        self._agreed: Counter[str] = Counter()
        self._uncertain: Counter[str] = Counter()
        self._uncertain_found: Counter[str] = Counter()
        self._unmapped: Counter[str] = Counter()
        self._seen: set[str] = set()

    def add(self, values: Mapping[str, int], ours: Iterable[str], covered: bool) -> None:
        """Count a study with its labels and the targets that we found in it."""
        self.studies += 1
        self._covered += covered
        self._unmapped.update(values.keys() - self._targets.keys())
        self._seen.update(self._targets[name] for name in values.keys() & self._targets.keys())
        present = self._named(values, 1)
        uncertain = self._named(values, -1) - present
        kept = closed((t for t in ours if t in self._taxonomy), self._taxonomy)
        self._uncertain.update(uncertain)
        self._uncertain_found.update(uncertain & kept)
        self._support.update(present)
        self._predicted.update(kept - uncertain)
        self._agreed.update(present & kept)

    def _named(self, values: Mapping[str, int], value: int) -> frozenset[str]:
        named = (self._targets[n] for n, v in values.items() if v == value and n in self._targets)
        return closed((target for target in named if target in self._taxonomy), self._taxonomy)

    def audit(self) -> LabelAudit:
        """The scores of the targets that some study has a label for, given or not."""
        targets: Collection[str] = sorted(self._seen)
        scores = {t: Score(self._support[t], self._predicted[t], self._agreed[t]) for t in targets}
        return LabelAudit(
            ReportScores(self.studies, self._covered, scores),
            {target: self._uncertain[target] for target in targets},
            {target: self._uncertain_found[target] for target in targets},
            dict(sorted(self._unmapped.items())),
        )
