"""Annotate: the text steps in a row, clean → extract → filter, on studies or on single texts.

The pipeline runs the same steps one stage at a time. This is for callers that want their result
at once: `vividmed tag`, the planning of a run's requests, benchmarks and tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import get_args

import pyarrow as pa

from storage.datasets.selection import RequiredSections
from storage.records import Assertion
from storage.shards import table_from_rows
from tasks.clean import clean_reports
from tasks.engines.metering import metered
from tasks.engines.protocols import TextEngines
from tasks.extract import extract_phrases
from tasks.filter import filter_positives
from tasks.step import StepOutput
from taxonomy.targets import Taxonomy

EVERY_ASSERTION: tuple[Assertion, ...] = get_args(Assertion)
STEPS = ("clean", "extract", "filter")


@dataclass(frozen=True)
class Annotation:
    """What each text step made of the studies.

    usage: requests, tokens and time of the engines, by step; see `tasks.engines.metering`.
    """

    clean: StepOutput
    extract: StepOutput
    filter: StepOutput
    usage: dict[str, Counter[str]]

    @property
    def reports(self) -> pa.Table:
        """The cleaned reports, as rows of `clean_reports`."""
        return self.clean.rows

    @property
    def phrases(self) -> pa.Table:
        """All phrases, as rows of `phrases`."""
        return self.extract.rows

    @property
    def positives(self) -> pa.Table:
        """The phrases kept, with their assertion, as rows of `positives`."""
        return self.filter.rows


def annotate(
    studies: pa.Table,
    engines: TextEngines,
    taxonomy: Taxonomy,
    *,
    require: RequiredSections = "any",
    positive: Collection[Assertion] = EVERY_ASSERTION,
) -> Annotation:
    """Clean the reports of studies, find their phrases and classify them.

    Args:
        studies: rows of `studies`.
        engines: of the three steps.
        taxonomy: the targets that may be named.
        require: which sections a report must have.
        positive: the assertions of the phrases to keep; all of them, unless given.
    """
    with metered() as cleaning:
        clean = clean_reports(studies, engines.cleaner, require)
    with metered() as extracting:
        extract = extract_phrases(clean.rows, engines.extractor, taxonomy)
    with metered() as filtering:
        positives = filter_positives(clean.rows, extract.rows, engines.filter, positive)
    usage = dict(zip(STEPS, map(Counter, (cleaning, extracting, filtering)), strict=True))
    return Annotation(clean, extract, positives, usage)


def annotate_texts(texts: Sequence[str], engines: TextEngines, taxonomy: Taxonomy) -> Annotation:
    """Annotate texts as the findings of studies with their numbers as ids: "0", "1" and so on."""
    rows = [{"study_id": str(i), "findings": text} for i, text in enumerate(texts)]
    return annotate(table_from_rows("studies", rows), engines, taxonomy)
