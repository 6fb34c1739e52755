"""The pipeline: which stages there are, what each reads, and which engine does it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa

from storage.datasets import DatasetSource, dataset_source
from storage.datasets.reader import SourceRecord
from storage.shards import Part
from storage.store import Store, StoreError
from tasks.assemble import assemble_reports
from tasks.clean import clean_reports
from tasks.detect import detect_boxes
from tasks.extract import extract_phrases
from tasks.filter import filter_positives
from tasks.ingest import ingest_studies
from tasks.pipeline.engine_choice import Engines, choose_engines
from tasks.pipeline.runner import Stage
from tasks.pipeline.settings import BuildSettings
from tasks.segment import segment_masks
from taxonomy.targets import Taxonomy, load_taxonomy

STUDIES = ("ingest", "studies")
REPORTS = ("clean", "clean_reports")
PHRASES = ("extract", "phrases")
POSITIVES = ("filter", "positives")
BOXES = ("detect", "boxes")
MASKS = ("segment", "masks")
UNREAD = ("extract", "rejects")
WITHOUT_BOX = ("detect", "rejects")
WITHOUT_MASK = ("segment", "rejects")


@dataclass(frozen=True)
class Pipeline:
    """Everything that a run of `build-grounded-reports` needs, checked and ready."""

    store: Store
    parts: tuple[Part, ...]
    stages: Mapping[str, Stage]


@cache
def pipeline(settings: BuildSettings) -> Pipeline:
    """Plan the run that the settings ask for; once per process, since engines are kept.

    Raises:
        DatasetError, StoreError, TaxonomyError: before any work is done.
    """
    taxonomy = load_taxonomy()
    store = Store(settings.store)
    store.require_writable()
    source = dataset_source(settings.dataset, Path(settings.source) if settings.source else None)
    records = source.reader.records()[: settings.limit]
    parts = parts_of(settings.dataset, records, settings.shard_size or source.shard_size)
    _refuse_stale_parts(store, settings.dataset, parts)
    stages = _stages(settings, source, parts, choose_engines(settings, taxonomy), taxonomy)
    return Pipeline(store, tuple(parts), {stage.name: stage for stage in stages})


Records = tuple[SourceRecord, ...]


def parts_of(dataset: str, records: list[SourceRecord], size: int) -> dict[Part, Records]:
    """The parts of a dataset, each with its records; `size` records a part, splits apart."""
    by_split: dict[str, list[SourceRecord]] = {}
    for record in records:
        by_split.setdefault(record.split, []).append(record)
    return {
        Part(dataset, split, start // size): tuple(of_split[start : start + size])
        for split, of_split in by_split.items()
        for start in range(0, len(of_split), size)
    }


def _digest(records: Records) -> str:
    return hashlib.sha256("\n".join(record.key for record in records).encode()).hexdigest()


def _refuse_stale_parts(store: Store, dataset: str, parts: Mapping[Part, Records]) -> None:
    """A store with more parts than the run plans would show studies twice, or old ones."""
    planned = {f"manifests/ingest/{part.folder}/{part.name}.json" for part in parts}
    held = store.list(f"manifests/ingest/dataset={dataset}", ".json")
    if stale := [path for path in held if path not in planned]:
        raise StoreError(
            f"{store.root} holds {len(held)} shards of {dataset}, of which this run plans "
            f"{len(held) - len(stale)}: it was built with another --limit or --shard-size; "
            "use the same, or another --store"
        )


def _stages(
    settings: BuildSettings,
    source: DatasetSource,
    parts: Mapping[Part, Records],
    engines: Engines,
    taxonomy: Taxonomy,
) -> list[Stage]:
    """The stages in order; a version is raised when a step's own output changes."""
    names = engines.names() | {"taxonomy": taxonomy.digest("all")}
    return [
        Stage(
            name="ingest",
            table="studies",
            unit="file",
            recipe={"version": 1, "source": source.reader.fingerprint()},
            step=lambda part: ingest_studies(part, source.reader, parts[part]),
            external=lambda part: {"records": _digest(parts[part])},
        ),
        Stage(
            name="clean",
            table="clean_reports",
            unit="report",
            recipe={
                "version": 1,
                "engine": engines.cleaner.fingerprint,
                "require_sections": settings.require_sections,
            },
            inputs=(STUDIES,),
            step=lambda _, studies: clean_reports(
                studies, engines.cleaner, settings.require_sections
            ),
        ),
        Stage(
            name="extract",
            table="phrases",
            unit="report",
            recipe={"version": 1, "engine": engines.extractor.fingerprint},
            inputs=(REPORTS,),
            step=lambda _, reports: extract_phrases(reports, engines.extractor, taxonomy),
        ),
        Stage(
            name="filter",
            table="positives",
            unit="phrase",
            recipe={
                "version": 1,
                "engine": engines.filter.fingerprint,
                "positive": settings.positive,
            },
            inputs=(REPORTS, PHRASES),
            step=lambda _, reports, phrases: filter_positives(
                reports, phrases, engines.filter, settings.positive
            ),
        ),
        Stage(
            name="detect",
            table="boxes",
            unit="site",
            recipe={"version": 1, "engine": engines.detector.fingerprint},
            inputs=(STUDIES, POSITIVES),
            step=lambda _, studies, positives: detect_boxes(studies, positives, engines.detector),
        ),
        Stage(
            name="segment",
            table="masks",
            unit="site",
            recipe={"version": 1, "engine": engines.segmenter.fingerprint},
            inputs=(STUDIES, POSITIVES),
            step=lambda _, studies, positives: segment_masks(studies, positives, engines.segmenter),
        ),
        Stage(
            name="assemble",
            table="grounded_reports",
            unit="pair",
            recipe={"version": 1, "engines": names},
            inputs=(STUDIES, REPORTS, UNREAD, POSITIVES, BOXES, MASKS, WITHOUT_BOX, WITHOUT_MASK),
            step=lambda _, studies, reports, unread, positives, boxes, masks, *unlocalized: (
                assemble_reports(
                    studies=studies,
                    reports=reports,
                    unread=unread,
                    positives=positives,
                    boxes=boxes,
                    masks=masks,
                    unlocalized=pa.concat_tables(unlocalized),
                    engines=names,
                )
            ),
        ),
    ]
