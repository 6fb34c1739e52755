"""Whether the cases were learned: every text to the letter, every mask and box close enough."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.overfit.evaluate import Examined, Score

DICE_TARGET = 0.9
"""For every mask, in the prepared image."""

GIOU_TARGET = 0.8
"""For every box, on the grid of the file."""


@dataclass(frozen=True)
class Verdict:
    """What came out.

    seconds: by part of the work.
    """

    examined: Sequence[Examined]
    seconds: dict[str, float]

    @property
    def good(self) -> bool:
        """Whether every answer, mask and box reaches its target, and no box is too many."""
        summary = self.summary()
        return (
            all(of.says_it for of in self.examined)
            and summary["dice"]["lowest"] >= DICE_TARGET
            and summary["giou"]["lowest"] >= GIOU_TARGET
            and summary["false_boxes"] == 0
        )

    def summary(self) -> dict[str, Any]:
        """The figures over all phrases."""
        scores = self._scores()
        giou = [value for score in scores for value in score.giou]
        return {
            "texts": f"{sum(of.says_it for of in self.examined)} of {len(self.examined)}",
            "dice": _range([of.dice for of in scores if of.dice is not None]),
            "dice_in_file": _range(
                [of.dice_in_file for of in scores if of.dice_in_file is not None]
            ),
            "giou": _range(giou),
            "false_boxes": sum(score.false_boxes for score in scores),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }

    def to_json(self) -> str:
        """Everything that was measured, for programs."""
        phrases = [
            {"image": of.case.name, "query": of.exchange.question.query, **asdict(score)}
            for of in self.examined
            for score in of.scores
        ]
        whole = {"targets_met": self.good, **self.summary(), "phrases": phrases}
        return json.dumps(whole, indent=2) + "\n"

    def print(self, out: Console) -> None:
        """The answers and the figures, for people."""
        for of in self.examined:
            right = "as taught" if of.says_it else f"taught: {of.exchange.answer}"
            out.print(f"{of.case.name}: {of.exchange.question.query}", markup=False)
            out.print(f"  {of.prediction.text} ({right})", markup=False)
        out.print(self._table())
        summary = self.summary()
        for name in ("dice", "dice_in_file", "giou"):
            out.print("{0}: mean {mean:.3f}, lowest {lowest:.3f}".format(name, **summary[name]))
        total = sum(self.seconds.values())
        parts = ", ".join(f"{name} {value:.0f} s" for name, value in self.seconds.items())
        out.print(f"{total:.0f} s: {parts}")
        out.print("targets met" if self.good else "targets missed")

    def _scores(self) -> list[Score]:
        return [score for of in self.examined for score in of.scores]

    def _table(self) -> Table:
        table = Table("image", "phrase", "Dice", "in the file", "GIoU of each box", "false boxes")
        for of in self.examined:
            for score in of.scores:
                table.add_row(
                    of.case.name,
                    score.phrase,
                    "" if score.dice is None else f"{score.dice:.3f}",
                    "" if score.dice_in_file is None else f"{score.dice_in_file:.3f}",
                    "  ".join(f"{value:.3f}" for value in score.giou),
                    str(score.false_boxes) if score.giou else "",
                )
        return table


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(values), "lowest": min(values)}
