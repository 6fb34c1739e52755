"""Which boxes of a detector with classes are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Policy = Literal["threshold", "paper"]


@dataclass(frozen=True)
class Selection:
    """Which of a detector's boxes are kept.

    threshold: the least score, the paper's 0.1 by default.
    thresholds: that of single targets.
    policy: `threshold` keeps no other box. `paper` does as the paper's code: where no box of a
        class passes, its best one is taken all the same, and marked `forced`; and boxes on either
        side are taken whatever side the report states.
    """

    threshold: float = 0.1
    thresholds: Mapping[str, float] = field(default_factory=dict)
    policy: Policy = "threshold"

    def least_score(self, target: str) -> float:
        """The least score of a box of the target."""
        return self.thresholds.get(target, self.threshold)
