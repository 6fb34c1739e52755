"""Ingest: a dataset's own files become rows of the `studies` table."""

from __future__ import annotations

from collections.abc import Sequence

from storage.datasets.reader import DatasetReader, SourceRecord
from storage.rejects import Reject
from storage.shards import Part, table_from_rows
from tasks.step import StepOutput


def ingest_studies(
    part: Part, reader: DatasetReader, records: Sequence[SourceRecord]
) -> StepOutput:
    """Read the records of a part; one that cannot be read is rejected with its reason."""
    results = list(reader.read(records))
    rejects = [result for result in results if isinstance(result, Reject)]
    rows = [r.row(part.dataset, part.split) for r in results if not isinstance(r, Reject)]
    return StepOutput(table_from_rows("studies", rows), rejects, len(records), len(rows))
