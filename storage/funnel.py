"""A funnel: how many studies and image-report pairs a source has, and how many each rule takes out.

found − not read − rule − … = kept        in studies and in pairs alike
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

FOUND = "found"
NOT_READ = "not read"
KEPT = "kept"

_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """What is found or kept, or what a rule takes out.

    step: `found`, `not read`, the name of a rule, `kept`.
    pairs: images, each of which makes a pair with the report of its study.
    """

    step: str
    studies: _Count = 0
    pairs: _Count = 0

    def __add__(self, other: FunnelStep) -> FunnelStep:
        """The same step of two parts of a data set."""
        return FunnelStep(self.step, self.studies + other.studies, self.pairs + other.pairs)


def added(steps: Iterable[FunnelStep]) -> tuple[FunnelStep, ...]:
    """The steps of one or more funnels, each once with its sums, in order of first mention.

    What is kept stands last.
    """
    sums: dict[str, FunnelStep] = {}
    for step in steps:
        sums[step.step] = sums.get(step.step, FunnelStep(step.step)) + step
    kept = sums.pop(KEPT, None)
    return (*sums.values(), *((kept,) if kept else ()))


def step_of(funnel: Sequence[FunnelStep], name: str) -> FunnelStep:
    """A step of a funnel; nothing where it has no such step."""
    return next((step for step in funnel if step.step == name), FunnelStep(name))


def sentence(funnel: Sequence[FunnelStep]) -> str:
    """A funnel in words: "40 studies (78 pairs) found; not read 1 (0), …; 38 (38) kept"."""
    found, kept = step_of(funnel, FOUND), step_of(funnel, KEPT)
    removed = (step for step in funnel if step.step not in (FOUND, KEPT))
    by_rule = ", ".join(f"{step.step} {step.studies:,} ({step.pairs:,})" for step in removed)
    first = f"{found.studies:,} studies ({found.pairs:,} pairs) found"
    return f"{first}; {by_rule}; {kept.studies:,} ({kept.pairs:,}) kept"
