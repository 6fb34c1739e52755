"""Which studies of a dataset the gallery shows: all of a small one, a varied few of a large one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

BUDGET = 24
VOLUME_COST = 4  # a volume brings several pictures, a radiograph one
_NORMALS = 4


@dataclass(frozen=True, slots=True)
class Candidate:
    """A study that could be shown.

    abnormalities: targets that its tags name; grounded: tags with a box or a mask; cost: how much
    of the budget it takes.
    """

    study_id: str
    abnormalities: frozenset[str]
    grounded: int
    cost: int


def choose_studies(candidates: Sequence[Candidate], budget: int = BUDGET) -> list[str]:
    """The studies to show, by id: all in their order if the budget allows, else a sample.

    The sample begins with reports that name several abnormalities, each adding what those before
    it have not shown, and ends with a few that name none. The same candidates give the same
    sample.
    """
    if sum(candidate.cost for candidate in candidates) <= budget:
        return [candidate.study_id for candidate in candidates]
    # The hash mixes the order of the dataset, in which neighbours are often alike.
    mixed = sorted(candidates, key=lambda c: hashlib.sha256(c.study_id.encode()).digest())
    normals = [candidate for candidate in mixed if not candidate.abnormalities][:_NORMALS]
    findings = [candidate for candidate in mixed if candidate.abnormalities]
    spared = sum(candidate.cost for candidate in normals)
    return [c.study_id for c in (*_varied(findings, budget - spared), *normals)]


def _varied(pool: list[Candidate], budget: int) -> list[Candidate]:
    shown: set[str] = set()
    chosen: list[Candidate] = []
    while pool:
        best = max(pool, key=lambda c: (len(c.abnormalities - shown), c.grounded))
        if best.cost > budget:
            break
        budget -= best.cost
        chosen.append(best)
        pool = [candidate for candidate in pool if candidate is not best]
        shown |= best.abnormalities
    return chosen
