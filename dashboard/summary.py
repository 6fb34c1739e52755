"""What became of a dataset, in the few numbers that head its part of the gallery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from storage.manifests import Manifest

_TAGS = """
SELECT dataset, sum(len(tags))::BIGINT AS tags,
       sum(len([t for t in tags if t.grounding != 'none']))::BIGINT AS grounded
FROM grounded_reports GROUP BY dataset
"""


@dataclass(frozen=True)
class DatasetSummary:
    """Numbers of a dataset, from its manifests; the tags are counted in its grounded reports.

    predictions: images whose report a model predicted.
    version: number of the version of the data set; None for one without versions.
    rejects: records that each stage rejected, as ((stage, reason), count), most frequent first.
    """

    dataset: str
    predictions: int
    studies_read: int
    reports_kept: int
    phrases_found: int
    phrases_kept: int
    tags: int
    grounded_tags: int
    rejects: tuple[tuple[tuple[str, str], int], ...]
    version: int | None = None


def summarize(
    manifests: Sequence[Manifest], catalogue: duckdb.DuckDBPyConnection
) -> list[DatasetSummary]:
    """Every dataset of the store; first those of which most tags are grounded."""
    by_dataset: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        by_dataset.setdefault(manifest.part.dataset, []).append(manifest)
    has_reports = any("grounded_reports" in manifest.outputs for manifest in manifests)
    rows = catalogue.execute(_TAGS).fetchall() if has_reports else []
    tags = {dataset: (count, grounded) for dataset, count, grounded in rows}
    summaries = [_summary(name, of, *tags.get(name, (0, 0))) for name, of in by_dataset.items()]
    return sorted(summaries, key=lambda s: (-s.grounded_tags / max(s.tags, 1), s.dataset))


def _summary(dataset: str, manifests: list[Manifest], tags: int, grounded: int) -> DatasetSummary:
    rows_out: Counter[str] = Counter()
    phrases = 0
    rejects: Counter[tuple[str, str]] = Counter()
    for manifest in manifests:
        rows_out[manifest.stage] += manifest.rows_out
        if manifest.stage == "extract":
            phrases += manifest.outputs["phrases"].rows
        for reason, count in manifest.rejects.items():
            rejects[manifest.stage, reason] += count
    return DatasetSummary(
        dataset=dataset,
        predictions=rows_out["predict"],
        studies_read=rows_out["ingest"],
        reports_kept=rows_out["clean"],
        phrases_found=phrases,
        phrases_kept=rows_out["filter"],
        tags=tags,
        grounded_tags=grounded,
        rejects=tuple(rejects.most_common()),
    )
