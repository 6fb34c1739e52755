"""Rejects: records that did not go through a stage, why, and what a person can do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from storage.reasons import require_known
from storage.records import SiteKey
from storage.shards import Part, table_from_rows


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that a stage rejected.

    record: what it was, for people: a file, a section, a phrase, an image and site.
    reason: a code of `storage/reasons.yaml`; detail: one sentence for a person.

    The other fields are the record's key, for programs; None where they do not apply.

    image_id, site: of a site that could not be localized; a study without an image has a site
        alone, a proposed box that was rejected an image alone.
    section, start: of a phrase, in code points of the cleaned section; a section alone if one of
        its proposals was rejected.
    """

    study_id: str
    record: str
    reason: str
    detail: str
    image_id: str | None = None
    site: SiteKey | None = None
    section: str | None = None
    start: int | None = None


def rejects_table(part: Part, stage: str, rejects: Iterable[Reject]) -> pa.Table:
    """The rejects of a stage on a part as rows of the `rejects` table.

    Raises:
        UnknownReasonError: if a reason is neither in `storage/reasons.yaml` nor an engine's own.
    """
    place = {"dataset": part.dataset, "split": part.split, "stage": stage}
    nowhere = {"target": None, "laterality": None, "zones": None}
    rows = [
        place
        | {
            "study_id": reject.study_id,
            "record": reject.record,
            "reason": require_known(reject.reason),
            "detail": reject.detail,
            "image_id": reject.image_id,
            "section": reject.section,
            "start": reject.start,
        }
        | (reject.site.to_row() if reject.site else nowhere)
        for reject in rejects
    ]
    return table_from_rows("rejects", rows)


def rejects_of(rows: pa.Table) -> list[Reject]:
    """The rejects of a `rejects` table, in its order."""
    return [
        Reject(
            row["study_id"],
            row["record"],
            row["reason"],
            row["detail"],
            image_id=row["image_id"],
            site=SiteKey.from_row(row) if row["target"] else None,
            section=row["section"],
            start=row["start"],
        )
        for row in rows.to_pylist()
    ]


def count_by_reason(rejects: Iterable[Reject]) -> dict[str, int]:
    """How many were rejected for each reason, most frequent first."""
    return dict(Counter(reject.reason for reject in rejects).most_common())
