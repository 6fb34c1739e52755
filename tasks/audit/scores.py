"""Counts and rates of agreement between what we found and a reference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from taxonomy.targets import Taxonomy

MINIMUM_SUPPORT = 5
"""Reports of a half that must be coded with a target for it to count in the second macro average:
with fewer, one report moves the target's score by a fifth or more."""


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement on one target or several; `support` counts the reports coded with it."""

    support: int
    predicted: int
    agreed: int

    @property
    def precision(self) -> float:
        """Share of what we name that the reference has; 0 without any."""
        return self.agreed / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of what the reference has that we name; 0 without any."""
        return self.agreed / self.support if self.support else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 when nothing agrees."""
        return 2 * self.agreed / (self.support + self.predicted) if self.agreed else 0.0

    def as_json(self) -> dict[str, float]:
        """Counts and rates, as JSON values."""
        return asdict(self) | {"precision": self.precision, "recall": self.recall, "f1": self.f1}


@dataclass(frozen=True)
class ReportScores:
    """Scores of reports, such as one half of them; `targets` holds every mapped target.

    reports: all that the reference codes. `covered` of them were kept by cleaning; what was
    coded in the others counts as missed.
    """

    reports: int
    covered: int
    targets: Mapping[str, Score]

    @property
    def coverage(self) -> float:
        """Share of the coded reports that cleaning kept; 0 without any."""
        return self.covered / self.reports if self.reports else 0.0

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
        """Mean F1 of all coded targets: one with a single report counts as one with hundreds."""
        return self.mean_f1(1)

    def mean_f1(self, minimum_support: int) -> float:
        """Mean F1 of the targets with this support or more; 0 when there are none."""
        scores = [s.f1 for s in self.targets.values() if s.support >= minimum_support]
        return sum(scores) / max(len(scores), 1)

    def as_json(self) -> dict[str, Any]:
        """Everything a table or a test needs, as JSON values."""
        return {
            "macro_f1": self.macro_f1,
            "macro_f1_supported": self.mean_f1(MINIMUM_SUPPORT),
            "macro_minimum_support": MINIMUM_SUPPORT,
            "micro_f1": self.micro_f1,
            "micro_precision": self.overall.precision,
            "micro_recall": self.overall.recall,
            "reports": self.reports,
            "coverage": self.coverage,
            "targets": {name: score.as_json() for name, score in self.targets.items()},
        }


@dataclass(frozen=True)
class Audit:
    """Both halves; the odd one is held out."""

    even: ReportScores
    odd: ReportScores

    def as_json(self) -> dict[str, Any]:
        """An object per half."""
        return {"even": self.even.as_json(), "odd": self.odd.as_json()}


def score_halves(
    coded: Mapping[str, Iterable[str]],
    found: Mapping[str, Iterable[str]],
    covered: Iterable[str],
    targets: Iterable[str],
    taxonomy: Taxonomy,
) -> Audit:
    """Score what was found in reports against what the reference codes, by study id.

    Both sides are closed upwards over the taxonomy.

    Args:
        coded: the reference's targets of every report that it codes; others are left out.
        found: our targets; none for a report that is missing here.
        covered: the reports that cleaning kept.
        targets: those to score.
        taxonomy: for the hierarchy.
    """
    names, kept = sorted(set(targets)), set(covered)
    halves = [[s for s in coded if report_number(s) % 2 == parity] for parity in (0, 1)]
    even, odd = (score_reports(half, coded, found, kept, names, taxonomy) for half in halves)
    return Audit(even, odd)


def score_reports(
    reports: Sequence[str],
    coded: Mapping[str, Iterable[str]],
    found: Mapping[str, Iterable[str]],
    covered: Container[str],
    targets: Iterable[str],
    taxonomy: Taxonomy,
) -> ReportScores:
    """Score some of the reports; the other arguments are those of `score_halves`."""
    support: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    for report in reports:
        theirs = closed(coded[report], taxonomy)
        ours = closed(found.get(report, ()), taxonomy)
        support.update(theirs)
        predicted.update(ours)
        agreed.update(theirs & ours)
    scores = {t: Score(support[t], predicted[t], agreed[t]) for t in targets}
    return ReportScores(len(reports), sum(report in covered for report in reports), scores)


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
