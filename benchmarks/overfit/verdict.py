"""Whether the model has memorized the cases: exact texts, accurate masks and boxes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.overfit.evaluate import Result, Score

DICE_TARGET = 0.9
"""Lowest Dice of every mask, in the prepared image."""

GIOU_TARGET = 0.8
"""Lowest GIoU of every box, on the grid of the file."""


@dataclass(frozen=True)
class Verdict:
    """Results of the evaluation.

    seconds: run time of each phase.
    """

    results: Sequence[Result]
    seconds: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether every answer, mask and box reaches its target, without false boxes."""
        summary = self.summary()
        return (
            all(result.exact for result in self.results)
            # The lowest, not the mean: a memorized case has no bad phrase.
            and summary["dice"]["lowest"] >= DICE_TARGET
            and summary["giou"]["lowest"] >= GIOU_TARGET
            and summary["false_boxes"] == 0
        )

    def summary(self) -> dict[str, Any]:
        """Aggregate metrics over all phrases."""
        scores = self._scores()
        giou = [value for score in scores for value in score.giou]
        return {
            "texts": f"{sum(result.exact for result in self.results)} of {len(self.results)}",
            "dice": _range([score.dice for score in scores if score.dice is not None]),
            "dice_in_file": _range(
                [score.dice_in_file for score in scores if score.dice_in_file is not None]
            ),
            "giou": _range(giou),
            "false_boxes": sum(score.false_boxes for score in scores),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }

    def to_json(self) -> str:
        """All metrics as JSON."""
        phrases = [
            {"image": result.case.name, "query": result.exchange.question.query, **asdict(score)}
            for result in self.results
            for score in result.scores
        ]
        whole = {"targets_met": self.passed, **self.summary(), "phrases": phrases}
        return json.dumps(whole, indent=2) + "\n"

    def print(self, out: Console) -> None:
        """Print the answers and the metrics."""
        for result in self.results:
            expected = "exact" if result.exact else f"expected: {result.exchange.answer}"
            out.print(f"{result.case.name}: {result.exchange.question.query}", markup=False)
            out.print(f"  {result.prediction.text} ({expected})", markup=False)
        out.print(self._table())
        summary = self.summary()
        for name in ("dice", "dice_in_file", "giou"):
            out.print("{0}: mean {mean:.3f}, lowest {lowest:.3f}".format(name, **summary[name]))
        total = sum(self.seconds.values())
        parts = ", ".join(f"{name} {value:.0f} s" for name, value in self.seconds.items())
        out.print(f"{total:.0f} s: {parts}")
        out.print("targets met" if self.passed else "targets missed")

    def _scores(self) -> list[Score]:
        return [score for result in self.results for score in result.scores]

    def _table(self) -> Table:
        table = Table("image", "phrase", "Dice", "in the file", "GIoU of each box", "false boxes")
        for result in self.results:
            for score in result.scores:
                table.add_row(
                    result.case.name,
                    score.phrase,
                    "" if score.dice is None else f"{score.dice:.3f}",
                    "" if score.dice_in_file is None else f"{score.dice_in_file:.3f}",
                    "  ".join(f"{value:.3f}" for value in score.giou),
                    str(score.false_boxes) if score.giou else "",
                )
        return table


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(values), "lowest": min(values)}
