"""The pipeline as one table: which stages there are, what each reads, and which engine does it.

    studies → clean → extract → filter → detect | segment → assemble

The flow, its progress and the run summary follow from this table; a stage is added by an entry
here, a step module beside the others, and the schema of its table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from storage.datasets.declaration import Declaration
from storage.datasets.reader import DatasetReader
from storage.datasets.selection import Selection
from storage.digests import combined_digest
from storage.gold import GOLD_TABLES
from storage.images.limits import image_limits
from storage.manifests import manifest_paths
from storage.plans import RECORDS, Plan, current_manifests
from storage.shards import Part
from storage.snapshots import current
from storage.store import Store, StoreError
from tasks.assemble import assemble_reports
from tasks.clean import clean_reports
from tasks.detect import detect_boxes
from tasks.engines.protocols import Engine
from tasks.engines.text.lexicon.vocabulary import target_names
from tasks.extract import extract_phrases
from tasks.filter import filter_positives
from tasks.ingest import ingest_studies
from tasks.pipeline.engine_choice import Engines, choose_engines
from tasks.pipeline.parts import PartRecords
from tasks.pipeline.renewal import Change
from tasks.pipeline.runner import Stage
from tasks.pipeline.settings import BuildSettings
from tasks.pipeline.taxonomies import kept, taxonomy_of
from tasks.pipeline.word_index import TABLE, with_words
from tasks.segment import segment_masks
from tasks.sites import image_files
from tasks.step import StepOutput
from taxonomy.impact import Impact, impact
from taxonomy.targets import Taxonomy


@dataclass(frozen=True)
class RunContext:
    """What the stages of one run work with.

    impacts: what has changed since earlier taxonomies, by their digest, as far as asked for.
    """

    settings: BuildSettings
    reader: DatasetReader
    parts: PartRecords
    engines: Engines
    taxonomy: Taxonomy
    selection: Selection = field(default_factory=Selection)
    impacts: dict[str, Impact | None] = field(default_factory=dict)

    def impact(self, before: str) -> Impact | None:
        """What has changed since the taxonomy of a digest; None if the store does not keep it."""
        if before not in self.impacts:
            earlier = kept(Store(self.settings.store), before)
            found = impact(earlier, self.taxonomy, target_names()) if earlier else None
            self.impacts[before] = found
        return self.impacts[before]

    def provenance(self) -> dict[str, str]:
        """Name and version of each engine by step, and the taxonomy's digest."""
        return self.engines.names() | {"taxonomy": self.taxonomy.digest("all")}


@dataclass(frozen=True)
class StageEntry:
    """A stage of the table, before a run gives it data and engines.

    table: what it writes, beside its rejects; one of `storage.schemas`.
    beside: further tables that it writes.
    unit: what its manifest counts.
    step: called with the run, the part and the input tables, in the order of `inputs`.
    inputs: the shards it reads, as (stage, table).
    engine: which engine does it; its fingerprint is part of the recipe. An engine that works beside
        this machine's CPU, on a GPU or a server, may declare how many shards it takes at once in an
        attribute `concurrency: int`. One that works on a single image at a time declares 2 and
        holds a lock: the next shard's images are read, and the last one's rows written, meanwhile.
    options: settings that decide the output, also part of the recipe.
    external: what it reads from outside the store, as names and digests; called like the step.
    reads: what of the taxonomy it reads: the words of texts, the classes that ground targets, or
        only its digest. None: a change of the taxonomy does not reach it.
    version: raised when the output of the step's own code changes.
    """

    name: str
    table: str
    unit: str
    step: Callable[..., StepOutput]
    inputs: Sequence[tuple[str, str]] = ()
    engine: Callable[[Engines], Engine] | None = None
    options: Callable[[RunContext], Mapping[str, Any]] = lambda _: {}
    external: Callable[..., Mapping[str, str]] | None = None
    beside: Sequence[str] = ()
    reads: Literal["words", "classes", "digest"] | None = None
    version: int = 1

    def bind(self, run: RunContext) -> Stage:
        """The stage in a run."""
        engine = self.engine(run.engines) if self.engine else None
        made_by = {"engine": engine.fingerprint} if engine else {}
        return Stage(
            name=self.name,
            table=self.table,
            beside=self.beside,
            unit=self.unit,
            recipe={"version": self.version, **made_by, **self.options(run)},
            step=partial(self.step, run),
            inputs=self.inputs,
            external=partial(self.external, run) if self.external else None,
            concurrency=getattr(engine, "concurrency", None),
            taxonomy=run.taxonomy.digest("all"),
            change=partial(self._change, run) if self.reads else None,
        )

    def _change(self, run: RunContext, before: str) -> Change | None:
        """What has changed for the stage since the taxonomy of a digest, if the store keeps it."""
        if (change := run.impact(before)) is None:
            return None
        is_text, is_image = self.reads == "words", self.reads == "classes"
        return Change(change, run.taxonomy.digest("all"), is_text, is_image)


STUDIES = ("ingest", "studies")
REPORTS = ("clean", "clean_reports")
PHRASES = ("extract", "phrases")
POSITIVES = ("filter", "positives")
BOXES = ("detect", "boxes")
MASKS = ("segment", "masks")
UNREAD = ("extract", "rejects")
WITHOUT_BOX = ("detect", "rejects")
WITHOUT_MASK = ("segment", "rejects")

STAGES: tuple[StageEntry, ...] = (
    StageEntry(
        name="ingest",
        table="studies",
        beside=GOLD_TABLES,
        unit="file",
        options=lambda run: {
            "source": run.reader.fingerprint(),
            **_limits(),
            **({"selection": run.selection.digest()} if run.selection else {}),
        },
        external=lambda run, part: {RECORDS: run.parts.digests[part.name]},
        step=lambda run, part: ingest_studies(part, run.reader, run.parts[part], run.selection),
    ),
    StageEntry(
        name="clean",
        table="clean_reports",
        unit="report",
        inputs=(STUDIES,),
        engine=lambda engines: engines.cleaner,
        options=lambda run: {"require_sections": run.settings.required_sections()},
        step=lambda run, _, studies: with_words(
            studies, clean_reports(studies, run.engines.cleaner, run.settings.required_sections())
        ),
        beside=(TABLE,),
        reads="words",
    ),
    StageEntry(
        name="extract",
        table="phrases",
        unit="report",
        inputs=(REPORTS,),
        engine=lambda engines: engines.extractor,
        options=lambda run: {"taxonomy": run.taxonomy.digest("lexicon")},
        step=lambda run, _, reports: extract_phrases(reports, run.engines.extractor, run.taxonomy),
        reads="words",
        version=2,
    ),
    StageEntry(
        name="filter",
        table="positives",
        unit="phrase",
        inputs=(REPORTS, PHRASES),
        engine=lambda engines: engines.filter,
        options=lambda run: {"positive": run.settings.positive},
        step=lambda run, _, reports, phrases: filter_positives(
            reports, phrases, run.engines.filter, run.settings.positive
        ),
        reads="words",
        version=2,
    ),
    StageEntry(
        name="detect",
        table="boxes",
        unit="site",
        inputs=(STUDIES, POSITIVES),
        engine=lambda engines: engines.detector,
        options=lambda _: _limits(),
        external=lambda _, __, studies, positives: {
            "images": combined_digest(image_files(studies, positives, volumes=False))
        },
        step=lambda run, _, studies, positives: detect_boxes(
            studies, positives, run.engines.detector
        ),
        reads="classes",
    ),
    StageEntry(
        name="segment",
        table="masks",
        unit="site",
        inputs=(STUDIES, POSITIVES),
        engine=lambda engines: engines.segmenter,
        options=lambda _: _limits(),
        external=lambda _, __, studies, positives: {
            "images": combined_digest(image_files(studies, positives, volumes=True))
        },
        step=lambda run, _, studies, positives: segment_masks(
            studies, positives, run.engines.segmenter
        ),
        reads="classes",
    ),
    StageEntry(
        name="assemble",
        table="grounded_reports",
        unit="pair",
        inputs=(STUDIES, REPORTS, UNREAD, POSITIVES, BOXES, MASKS, WITHOUT_BOX, WITHOUT_MASK),
        options=lambda run: {"engines": run.provenance()},
        step=lambda run, _, studies, reports, unread, positives, boxes, masks, *unlocalized: (
            assemble_reports(
                studies=studies,
                reports=reports,
                unread=unread,
                positives=positives,
                boxes=boxes,
                masks=masks,
                unlocalized=pa.concat_tables(unlocalized),
                engines=run.provenance(),
            )
        ),
        reads="digest",
    ),
)


@dataclass(frozen=True)
class Pipeline:
    """Everything that a run of `build-grounded-reports` needs, checked and ready."""

    store: Store
    plan: Plan
    parts: tuple[Part, ...]
    stages: Mapping[str, Stage]
    taxonomy: Taxonomy
    reader: DatasetReader


@cache
def pipeline(settings: BuildSettings) -> Pipeline:
    """Plan the run that the settings ask for; once per process, since engines are kept.

    Raises:
        DatasetError, StoreError, TaxonomyError: before any work is done.
    """
    taxonomy = taxonomy_of(settings)
    store = Store(settings.store)
    store.require_writable()
    declaration = settings.dataset_declaration()
    source = Path(settings.source) if settings.source else None
    reader = declaration.open(source)
    selection = declaration.select(source, settings.require_sections)
    records = islice(reader.records(), settings.limit)
    parts = PartRecords(settings.dataset, records, settings.shard_size or declaration.shard_size)
    _refuse_stale_parts(store, settings.dataset, parts)
    engines = choose_engines(settings, taxonomy)
    run = RunContext(settings, reader, parts, engines, taxonomy, selection)
    stages = {entry.name: entry.bind(run) for entry in stages_of(declaration)}
    plan = parts.plan(settings.dataset, stages)
    return Pipeline(store, plan, tuple(parts), stages, taxonomy, reader)


def stages_of(declaration: Declaration) -> tuple[StageEntry, ...]:
    """The stages of a data set; one without reports is only ingested."""
    return STAGES if declaration.reports else STAGES[:1]


def _limits() -> dict[str, Any]:
    """How large images may be: under a higher limit, one that was too large is read."""
    return {"limits": image_limits().model_dump()}


def _refuse_stale_parts(store: Store, dataset: str, parts: Collection[Part]) -> None:
    """A store with more parts than the run plans would show studies twice, or old ones."""
    store = current(store)  # also where a killed process has left a switch half done
    if manifest_paths(store, dataset, "predict"):
        raise StoreError(
            f"{store.root} holds predictions under the name {dataset}: use another --store, or "
            "give the predictions a --dataset of their own"
        )
    planned = {part.name for part in parts}
    held = [m.part.name for m in current_manifests(store, dataset) if m.stage == STAGES[0].name]
    if stale := [name for name in held if name not in planned]:
        raise StoreError(
            f"{store.root} holds {len(held)} shards of {dataset}, of which this run plans "
            f"{len(held) - len(stale)}: it was built with another --limit or --shard-size; "
            "use the same, or another --store"
        )
