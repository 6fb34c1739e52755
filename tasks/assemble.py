"""Assemble: report text, tags and groundings become grounded reports.

Every tag gets the boxes or the mask of its own target and site, on the image of the row. (The
paper's released code gives all tags of an image the boxes of the last class; see the tests.) A tag
without grounding stays in the text, with the localizer's reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from storage.images.vocabulary import is_volume
from storage.records import (
    AnyBox,
    GroundedReport,
    Grounding,
    Mask,
    Modifiers,
    Provenance,
    Row,
    Site,
    SiteKey,
    Tag,
    box_from_row,
)
from storage.shards import table_from_rows
from tasks.clean import SECTIONS
from tasks.sites import groundable_images
from tasks.step import StepOutput

HEADINGS = {"findings": "Findings: ", "impression": "Impression: "}


def report_text(report: Mapping[str, str | None]) -> tuple[str, dict[str, int]]:
    """The text of a cleaned report and where each section starts in it.

    Each section is on a line of its own after its heading, exactly as cleaning left it.
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
        unread: rejects of the extractor. A report that it could not process is not assembled:
            without tags it would say that nothing in it can be grounded.
        engines: cleaner, extractor, filter, detector, segmenter and taxonomy, for provenance.
    """
    groundings = _Groundings(boxes, masks, unlocalized)
    phrases: dict[str, list[Row]] = defaultdict(list)
    for row in positives.to_pylist():
        phrases[row["study_id"]].append(row)
    by_study = {
        study["study_id"]: study
        for study in studies.select(["study_id", "images", "source"]).to_pylist()
    }
    unread_rows = unread.select(["study_id", "section"]).to_pylist()
    rejected = {row["study_id"] for row in unread_rows if row["section"] is None}
    pairs = [
        (report, image)
        for report in reports.to_pylist()
        if report["study_id"] not in rejected
        for image in _images(by_study[report["study_id"]])
    ]
    rows = [
        _report(
            report,
            image,
            phrases[report["study_id"]],
            groundings,
            _provenance(
                by_study[report["study_id"]]["source"],
                image,
                engines,
                is_by_rules=bool(report["by_rules"])
                or any(phrase["by_rules"] for phrase in phrases[report["study_id"]]),
            ),
        ).to_row()
        for report, image in pairs
    ]
    return StepOutput(table_from_rows("grounded_reports", rows), [], len(pairs), len(rows))


def _images(study: Row) -> list[dict[str, Any] | None]:
    return [*groundable_images(study["images"])] or [None]


def _provenance(
    source: str, image: Row | None, engines: Mapping[str, str], *, is_by_rules: bool
) -> Provenance:
    localizer = None
    if image:
        localizer = engines["segmenter" if is_volume(image["modality"]) else "detector"]
    return Provenance(
        source,
        engines["cleaner"],
        engines["extractor"],
        engines["filter"],
        localizer,
        engines["taxonomy"],
        by_rules=is_by_rules,
    )


def _report(
    report: Row,
    image: Row | None,
    phrases: list[Row],
    groundings: _Groundings,
    provenance: Provenance,
) -> GroundedReport:
    text, starts = report_text(report)
    image_id = image["image_id"] if image else None
    tags = [_tag(phrase, starts[phrase["section"]], image_id, groundings) for phrase in phrases]
    return GroundedReport(
        report["dataset"],
        report["split"],
        report["study_id"],
        image_id,
        text,
        tuple(sorted(tags, key=lambda tag: tag.start)),
        provenance,
    )


def _tag(phrase: Row, offset: int, image_id: str | None, groundings: _Groundings) -> Tag:
    """The tag of a phrase on an image; `offset` is where its section starts in the text."""
    site = Site(phrase["target"], Modifiers.from_row(phrase["modifiers"])).key
    return Tag(
        offset + phrase["start"],
        offset + phrase["end"],
        phrase["phrase"],
        site.target,
        phrase["category"],
        groundings.find(phrase["study_id"], image_id, site),
        site.laterality,
        site.zones,
    )


class _Groundings:
    """What the localizers found and did not find, by study, image and site."""

    def __init__(self, boxes: pa.Table, masks: pa.Table, unlocalized: pa.Table) -> None:
        self._boxes: dict[_Key, list[AnyBox]] = defaultdict(list)
        for row in boxes.to_pylist():
            self._boxes[_key(row)].append(box_from_row(row))
        self._masks = {_key(row): Mask.from_row(row) for row in masks.to_pylist()}
        rejects = unlocalized.drop_columns(["record", "detail"]).to_pylist()
        self._reasons = {_key(row): row["reason"] for row in rejects}

    def find(self, study_id: str, image_id: str | None, site: SiteKey) -> Grounding:
        """The boxes or the mask of a site on an image, or the reason why it has neither."""
        key = study_id, image_id, site
        boxes, mask = tuple(self._boxes.get(key, ())), self._masks.get(key)
        reason = None if boxes or mask else self._reasons[key]
        return Grounding(boxes, mask, reason)


_Key = tuple[str, str | None, SiteKey]


def _key(row: Row) -> _Key:
    return row["study_id"], row["image_id"], SiteKey.from_row(row)
