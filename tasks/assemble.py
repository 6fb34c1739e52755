"""Assemble: report text, tags and groundings become grounded reports.

Every tag gets the boxes or the mask of its own target and site, on the image of the row. (The
paper's released code gives all tags of an image the boxes of the last class; see the tests.) A tag
without grounding stays in the text with the reason that the localizer gave.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from storage.shards import table_from_rows
from tasks.clean import SECTIONS
from tasks.extract import WHOLE_REPORT
from tasks.localize import VOLUME_MODALITIES, groundable_images, site_name, site_of
from tasks.step import StepOutput

HEADINGS = {"findings": "Findings: ", "impression": "Impression: "}

Row = dict[str, Any]
SiteKey = tuple[str | None, str, str | None, tuple[str, ...]]


def report_text(report: Mapping[str, str | None]) -> tuple[str, dict[str, int]]:
    """The text of a cleaned report and where each section starts in it.

    The sections follow one another on lines of their own, after their headings, exactly as
    cleaning left them.
    """
    text, starts = "", {}
    for section in SECTIONS:
        if body := report[section]:
            text += ("\n" if text else "") + HEADINGS[section]
            starts[section] = len(text)
            text += body
    return text, starts


def assemble_reports(
    studies: pa.Table,
    reports: pa.Table,
    positives: pa.Table,
    boxes: pa.Table,
    masks: pa.Table,
    unlocalized: pa.Table,
    unread: pa.Table,
    engines: Mapping[str, str],
) -> StepOutput:
    """One grounded report per study and image to ground in, or per study that has none.

    Args:
        studies: the images.
        reports: the cleaned texts.
        positives: the phrases to tag.
        boxes: what the detector found.
        masks: what the segmenter found.
        unlocalized: rejects of both, which hold the reasons.
        unread: rejects of the extractor: reports that it could not do are not assembled, for a
            report without tags would say that it names nothing.
        engines: cleaner, extractor, filter, detector, segmenter and taxonomy, for provenance.
    """
    grounding = _Groundings(boxes, masks, unlocalized)
    phrases: dict[str, list[Row]] = defaultdict(list)
    for row in positives.to_pylist():
        phrases[row["study_id"]].append(row)
    by_study = {
        study["study_id"]: study
        for study in studies.select(["study_id", "images", "source"]).to_pylist()
    }
    rejects = unread.select(["study_id", "record"]).to_pylist()
    set_aside = {row["study_id"] for row in rejects if row["record"] == WHOLE_REPORT}
    pairs: list[tuple[Row, Row | None]] = [
        (report, image)
        for report in reports.to_pylist()
        if report["study_id"] not in set_aside
        for image in _images(by_study[report["study_id"]])
    ]
    rows = [
        _row(
            report,
            by_study[report["study_id"]]["source"],
            image,
            phrases[report["study_id"]],
            grounding,
            engines,
        )
        for report, image in pairs
    ]
    return StepOutput(table_from_rows("grounded_reports", rows), [], len(pairs), len(rows))


def _images(study: Row) -> list[Row | None]:
    return [*groundable_images(study["images"])] or [None]


def _row(
    report: Row,
    source: str,
    image: Row | None,
    phrases: list[Row],
    grounding: _Groundings,
    engines: Mapping[str, str],
) -> Row:
    text, starts = report_text(report)
    image_id = image["image_id"] if image else None
    tags = [grounding.tag(row, image_id, starts[row["section"]]) for row in phrases]
    localizer = None
    if image:
        localizer = engines["segmenter" if image["modality"] in VOLUME_MODALITIES else "detector"]
    return {
        "dataset": report["dataset"],
        "split": report["split"],
        "study_id": report["study_id"],
        "image_id": image_id,
        "text": text,
        "tags": sorted(tags, key=lambda tag: tag["start"]),
        "provenance": {
            "source": source,
            "cleaner": engines["cleaner"],
            "extractor": engines["extractor"],
            "filter": engines["filter"],
            "localizer": localizer,
            "taxonomy": engines["taxonomy"],
            "notice": "research use, not for clinical decisions",
        },
    }


class _Groundings:
    """What the localizers found and did not find, by image and site."""

    def __init__(self, boxes: pa.Table, masks: pa.Table, unlocalized: pa.Table) -> None:
        self._boxes: dict[SiteKey, list[Row]] = defaultdict(list)
        for row in boxes.to_pylist():
            self._boxes[_row_key(row)].append(row)
        self._masks = {_row_key(row): row for row in masks.drop_columns(["mask"]).to_pylist()}
        rejects = unlocalized.select(["study_id", "record", "reason"]).to_pylist()
        self._reasons = {(r["study_id"], r["record"]): r["reason"] for r in rejects}

    def tag(self, phrase: Row, image_id: str | None, offset: int) -> Row:
        """The tag of a phrase on an image; `offset` is where its section starts in the text."""
        site = site_of(phrase["target"], phrase["modifiers"])
        key: SiteKey = (image_id, site.target, site.modifiers.laterality, site.modifiers.zones)
        boxes = self._boxes.get(key, [])
        mask = self._masks.get(key)
        reason = None
        if not boxes and mask is None:
            reason = self._reasons[phrase["study_id"], site_name(image_id, site)]
        return {
            "start": offset + phrase["start"],
            "end": offset + phrase["end"],
            "phrase": phrase["phrase"],
            "target": phrase["target"],
            "category": phrase["category"],
            "grounding": "box" if boxes else "mask" if mask else "none",
            "reason": reason,
            "boxes": boxes,
            "mask": mask,
        }


def _row_key(row: Row) -> SiteKey:
    return row["image_id"], row["target"], row["laterality"], tuple(row["zones"])
