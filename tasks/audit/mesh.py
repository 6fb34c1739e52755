"""The audit: phrases kept as positive against the MeSH tags that people gave the same reports.

OpenI's radiologist-coders tagged every report by hand (`MeSH/major`; Demner-Fushman et al. 2016).
The collection's automatic tags are left out: they are another program's reading of the same text,
not a second opinion. `mesh_targets.tsv` says which tag names which target.

Both sides are closed upwards over the taxonomy (a rib fracture is a fracture), so a report that
is coded more narrowly than it is worded is no mistake. Reports that were never coded ("No
Indexing") are left out. Even report numbers are the development
half; the odd half is scored apart and never read.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from taxonomy.targets import Taxonomy

MANUAL_TAG = "mesh_major:"
"""Prefix of a hand-given tag in `studies.labels`."""

MINIMUM_SUPPORT = 5
"""Reports of a half that must be coded with a target for it to count in the macro average: with
fewer, one report moves the target's score by a fifth or more."""

_NOT_CODED = "No Indexing"


@dataclass(frozen=True, slots=True)
class TagRule:
    """A MeSH heading, the qualifiers it must and must not have, and the target it then names."""

    heading: str
    required: frozenset[str]
    excluded: frozenset[str]
    target: str
    note: str


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement on one target or several; `support` counts the reports coded with it."""

    support: int
    predicted: int
    agreed: int

    @property
    def precision(self) -> float:
        """Share of the reports we call positive that are coded so; 0 without any."""
        return self.agreed / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the reports coded so that we call positive; 0 without any."""
        return self.agreed / self.support if self.support else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 when nothing agrees."""
        return 2 * self.agreed / (self.support + self.predicted) if self.agreed else 0.0

    def as_json(self) -> dict[str, float]:
        """Counts and rates, as JSON values."""
        return asdict(self) | {"precision": self.precision, "recall": self.recall, "f1": self.f1}


@dataclass(frozen=True)
class HalfScore:
    """Scores of one half of the reports; `targets` holds every mapped target."""

    reports: int
    targets: Mapping[str, Score]

    @property
    def overall(self) -> Score:
        """All (report, target) pairs together."""
        scores = self.targets.values()
        return Score(
            sum(s.support for s in scores),
            sum(s.predicted for s in scores),
            sum(s.agreed for s in scores),
        )

    @property
    def micro_f1(self) -> float:
        """F1 over all (report, target) pairs."""
        return self.overall.f1

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the targets that at least `MINIMUM_SUPPORT` reports are coded with."""
        return self.mean_f1(MINIMUM_SUPPORT)

    def mean_f1(self, minimum_support: int) -> float:
        """Mean F1 of the targets with this support or more; 0 when there are none."""
        scores = [s.f1 for s in self.targets.values() if s.support >= minimum_support]
        return sum(scores) / max(len(scores), 1)

    def as_json(self) -> dict[str, Any]:
        """Everything a table or a test needs, as JSON values."""
        return {
            "reports": self.reports,
            "micro_f1": self.micro_f1,
            "micro_precision": self.overall.precision,
            "micro_recall": self.overall.recall,
            "macro_f1": self.macro_f1,
            "macro_minimum_support": MINIMUM_SUPPORT,
            "macro_f1_any_support": self.mean_f1(1),
            "targets": {name: score.as_json() for name, score in self.targets.items()},
        }


@dataclass(frozen=True)
class Audit:
    """Both halves; the odd one is held out."""

    even: HalfScore
    odd: HalfScore

    def as_json(self) -> dict[str, Any]:
        """An object per half."""
        return {"even": self.even.as_json(), "odd": self.odd.as_json()}


@dataclass(frozen=True, slots=True)
class _Report:
    number: int
    coded: frozenset[str]
    found: frozenset[str]


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


def manual_tags(labels: Iterable[tuple[str, int]] | None) -> list[str]:
    """The hand-given tags among a study's labels; none where the report was not coded."""
    given = [name for name, _ in labels or ()]
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
    positives: pa.Table,
    taxonomy: Taxonomy,
    rules: Sequence[TagRule] | None = None,
) -> Audit:
    """Score the positives of reports against the reports' hand-given tags.

    Args:
        studies: the reports to score (`storage.schemas.STUDIES`); those that were not coded are
            left out.
        positives: the phrases kept (`storage.schemas.POSITIVES`); other reports' are ignored.
        taxonomy: for the hierarchy; every target of a rule must be in it.
        rules: which tag names which target; those of `mesh_targets.tsv` by default.
    """
    rules = load_tag_rules() if rules is None else rules
    scored = sorted({rule.target for rule in rules})
    reports = _reports(studies, positives, taxonomy, rules)
    return Audit(
        even=_score_half([r for r in reports if r.number % 2 == 0], scored),
        odd=_score_half([r for r in reports if r.number % 2 == 1], scored),
    )


def _reports(
    studies: pa.Table, positives: pa.Table, taxonomy: Taxonomy, rules: Sequence[TagRule]
) -> list[_Report]:
    found: dict[str, set[str]] = {}
    kept = positives.select(["study_id", "target"]).to_pydict()
    for study_id, target in zip(kept["study_id"], kept["target"], strict=True):
        found.setdefault(study_id, set()).add(target)
    reports = []
    for study in studies.select(["study_id", "labels"]).to_pylist():
        tags = manual_tags(study["labels"])
        if not tags:
            continue
        reports.append(
            _Report(
                report_number(study["study_id"]),
                closed(coded_targets(tags, rules), taxonomy),
                closed(found.get(study["study_id"], ()), taxonomy),
            )
        )
    return reports


def report_number(study_id: str) -> int:
    """The number that ends a study id; its parity says which half the report is in.

    Raises:
        ValueError: if the id does not end in a number.
    """
    match = re.search(r"(\d+)$", study_id)
    if match is None:
        raise ValueError(f"study {study_id!r} has no number, so it is in neither half of the audit")
    return int(match[1])


def closed(targets: Iterable[str], taxonomy: Taxonomy) -> frozenset[str]:
    """The targets and everything broader: a rib fracture is a fracture."""
    named = set(targets)
    return frozenset(named.union(*(taxonomy.ancestors(name) for name in named)))


def _score_half(reports: Sequence[_Report], targets: Sequence[str]) -> HalfScore:
    coded = Counter(t for r in reports for t in r.coded)
    found = Counter(t for r in reports for t in r.found)
    agreed = Counter(t for r in reports for t in r.coded & r.found)
    scores = {t: Score(coded[t], found[t], agreed[t]) for t in targets}
    return HalfScore(len(reports), scores)
