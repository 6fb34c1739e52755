"""Records set aside: which, why, and what a person can do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from storage.shards import Part, table_from_rows


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that a stage set aside.

    record: what it was, in the stage's own terms: a file, a section, a phrase, an image and site.
    reason: a short code to count by; detail: one sentence for a person.
    """

    study_id: str
    record: str
    reason: str
    detail: str


def rejects_table(part: Part, stage: str, rejects: Iterable[Reject]) -> pa.Table:
    """The rejects of a stage on a part as rows of the `rejects` table."""
    key = {"dataset": part.dataset, "split": part.split, "stage": stage}
    rows = [
        key | {"study_id": r.study_id, "record": r.record, "reason": r.reason, "detail": r.detail}
        for r in rejects
    ]
    return table_from_rows("rejects", rows)


def count_by_reason(rejects: Iterable[Reject]) -> dict[str, int]:
    """How many were set aside for each reason, most frequent first."""
    return dict(Counter(r.reason for r in rejects).most_common())
