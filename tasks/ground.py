"""Ground: one report in its own images, all steps in a row and in memory.

The pipeline runs the same steps shard by shard. This is for callers that want one study at once:
`vividmed.ground` and `vividmed preview`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa

from storage.datasets.reader import Study
from storage.records import Assertion, GroundedReport, masks_by_key
from storage.rejects import Reject, rejects_table
from storage.shards import Part, table_from_rows
from tasks.annotate import Annotation, annotate
from tasks.assemble import assemble_reports
from tasks.detect import detect_boxes
from tasks.engines.protocols import Detector, Segmenter, TextEngines
from tasks.segment import segment_masks
from tasks.step import StepOutput
from taxonomy.targets import Taxonomy


@dataclass(frozen=True)
class GroundedStudy:
    """What each step made of one study.

    annotation: of the text steps.
    detect, segment: rows of `boxes` and of `masks`.
    reports: one for each image that can be grounded in, or a single one without; none if cleaning
        rejected the report.
    """

    annotation: Annotation
    detect: StepOutput
    segment: StepOutput
    reports: tuple[GroundedReport, ...]

    @property
    def rejects(self) -> dict[str, list[Reject]]:
        """What did not go through, by step."""
        text = self.annotation
        return {
            "clean": [*text.clean.rejects],
            "extract": [*text.extract.rejects],
            "filter": [*text.filter.rejects],
            "detect": [*self.detect.rejects],
            "segment": [*self.segment.rejects],
        }


def ground_study(
    study: Study,
    part: Part,
    text_engines: TextEngines,
    detector: Detector,
    segmenter: Segmenter,
    taxonomy: Taxonomy,
    positive: Collection[Assertion],
    provenance: Mapping[str, str],
) -> GroundedStudy:
    """Clean the report of a study, find its targets, and localize them in its images.

    Args:
        study: the report, and images that are there to be opened.
        part: the data set and split that the rows are told to be of.
        text_engines: of the steps clean, extract and filter.
        detector: for radiographs.
        segmenter: for CT volumes.
        taxonomy: the targets that may be named.
        positive: the assertions of the phrases to localize.
        provenance: names and versions of the engines, and the digest of the taxonomy.
    """
    studies = table_from_rows("studies", [study.row(part.dataset, part.split)])
    text = annotate(studies, text_engines, taxonomy, positive=positive)
    boxes = detect_boxes(studies, text.positives, detector)
    masks = segment_masks(studies, text.positives, segmenter)
    rejects = {
        stage: rejects_table(part, stage, output.rejects)
        for stage, output in {"extract": text.extract, "detect": boxes, "segment": masks}.items()
    }
    assembled = assemble_reports(
        studies=studies,
        reports=text.reports,
        positives=text.positives,
        boxes=boxes.rows,
        masks=masks.rows,
        unlocalized=pa.concat_tables([rejects["detect"], rejects["segment"]]),
        unread=rejects["extract"],
        engines=provenance,
    )
    by_image: dict[str | None, list[dict[str, object]]] = {}
    for mask in masks.rows.to_pylist():
        by_image.setdefault(mask["image_id"], []).append(mask)
    reports = tuple(
        GroundedReport.from_row(row, masks_by_key(by_image.get(row["image_id"], ())))
        for row in assembled.rows.to_pylist()
    )
    return GroundedStudy(text, boxes, masks, reports)
