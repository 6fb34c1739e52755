"""Ingest: a dataset's own files become rows of `studies` and of the tables of gold marks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from storage.datasets.reader import DatasetReader, SourceRecord, Study
from storage.datasets.selection import Selection
from storage.gold import GOLD_TABLES
from storage.rejects import Reject
from storage.shards import Part, table_from_rows
from tasks.step import StepOutput


def ingest_studies(
    part: Part,
    reader: DatasetReader,
    records: Sequence[SourceRecord],
    selection: Selection | None = None,
) -> StepOutput:
    """Read the records of a part and select from them.

    A record that cannot be read, or that a rule of the selection takes out, is rejected with its
    reason.
    """
    selected = (selection or Selection()).apply(list(_results(reader, records)))
    results = selected.results
    rejects = [result for result in results if isinstance(result, Reject)]
    studies = [result for result in results if not isinstance(result, Reject)]
    rows = [study.row(part.dataset, part.split) for study in studies]
    left_out = [reject for study in studies for reject in study.left_out]
    return StepOutput(
        table_from_rows("studies", rows),
        rejects,
        len(records),
        len(rows),
        left_out,
        {table: table_from_rows(table, rows) for table, rows in _gold(part, studies).items()},
        selected.funnel if selection else (),
    )


def _results(reader: DatasetReader, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
    """What the reader makes of the records, less those whose patient is in another split."""
    own = []
    for record in records:
        if record.split_of_patient is None:
            own.append(record)
            continue
        detail = (
            f"patient {record.patient_id} has studies in {record.split_of_patient} and in "
            f"{record.split}; those of {record.split_of_patient} are used"
        )
        yield Reject(record.key, record.key, "patient_in_two_splits", detail)
    yield from reader.read(own)


def _gold(part: Part, studies: Iterable[Study]) -> dict[str, list[dict[str, Any]]]:
    """What people marked in the studies, as rows by table."""
    found: dict[str, list[dict[str, Any]]] = {table: [] for table in GOLD_TABLES}
    for study in studies:
        if study.gold is None:
            continue
        key = {"dataset": part.dataset, "split": part.split, "study_id": study.study_id}
        for table, rows in study.gold.rows().items():
            found[table] += [key | row for row in rows]
    return found
