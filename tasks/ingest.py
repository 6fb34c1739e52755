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
    studies = [result for result in results if not isinstance(result, Reject)]
    rows = [study.row(part.dataset, part.split) for study in studies]
    left_out = [reject for study in studies for reject in study.left_out]
    return StepOutput(table_from_rows("studies", rows), rejects, len(records), len(rows), left_out)
