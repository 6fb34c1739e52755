"""Compares the figures of a benchmark with their targets (`targets.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

MET, MISSED, NOT_MEASURED = "target met", "target missed", "target not measured"


class Target(NamedTuple):
    """An inclusive bound on a figure."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def verdict(self, value: float | None) -> str:
        """`MET`, `MISSED` or, for a missing figure, `NOT_MEASURED`."""
        if value is None:
            return NOT_MEASURED
        low = self.at_least is not None and not value >= self.at_least
        high = self.at_most is not None and not value <= self.at_most
        return MISSED if low or high else MET

    def line(self, value: float | None) -> str:
        """One line with verdict, figure, value and bound."""
        bounds = {"at least": self.at_least, "at most": self.at_most}
        wanted = " and ".join(f"{word} {b:g}" for word, b in bounds.items() if b is not None)
        shown = "" if value is None else f" {value:.3g}" if abs(value) < 1000 else f" {value:,.0f}"
        return f"{self.verdict(value)}: {self.figure}{shown} ({wanted})"


def targets_of(benchmark: str) -> list[Target]:
    """The targets of a benchmark, in the order of the file."""
    raw: dict[str, dict[str, Any]] = yaml.safe_load(
        Path(__file__).with_name("targets.yaml").read_text(encoding="utf-8")
    )
    return [Target(figure, **bounds) for figure, bounds in raw.get(benchmark, {}).items()]


def judge(benchmark: str, figures: Mapping[str, float]) -> int:
    """Print a line for each target of a benchmark; the exit code is 1 if one is missed.

    Raises:
        KeyError: if a figure has no target, for example because it is spelled differently.
    """
    targets = targets_of(benchmark)
    if unknown := set(figures) - {target.figure for target in targets}:
        raise KeyError(f"targets.yaml has no target of {benchmark} for {sorted(unknown)}")
    verdicts = [(target, figures.get(target.figure)) for target in targets]
    print()
    for target, value in verdicts:
        print(target.line(value))
    return int(any(target.verdict(value) == MISSED for target, value in verdicts))
