"""Detect: boxes on frontal radiographs for what the report states as present."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from storage.images.loading import load_radiograph
from storage.images.types import Radiograph
from storage.records import Box, Site
from storage.rejects import Reject
from storage.shards import table_from_rows
from tasks.answers import checked_box, engine_label, require_as_many
from tasks.engines.protocols import (
    BatchDetector,
    Detection,
    Detector,
    EngineAnswerError,
    Ungrounded,
)
from tasks.sites import SiteRequest, localize, site_label, site_requests
from tasks.step import StepOutput


@dataclass(frozen=True)
class _Proposals:
    """What a detector proposes for a site, checked.

    boxes: those that cannot be kept are replaced by the reason.
    columns: of the rows of its boxes: the engine, and whether the box was forced.
    """

    boxes: list[Box | Ungrounded]
    columns: dict[str, Any]


def detect_boxes(studies: pa.Table, positives: pa.Table, detector: Detector) -> StepOutput:
    """Ask the detector for every site on every frontal radiograph of its study.

    Sites of a study that has no image to ground in are rejected here too. A box that cannot be
    right is discarded; a site that keeps none is rejected with the reason of its first.

    Raises:
        EngineAnswerError: if the detector does not keep to its protocol.
    """

    def answer(
        images: Sequence[tuple[Radiograph, Sequence[Site]]],
    ) -> list[list[_Proposals | Ungrounded]]:
        answers = _detect(detector, images)
        require_as_many(detector, answers, images, "images")
        shapes = [image.pixels.shape for image, _ in images]
        return [
            [
                found if isinstance(found, Ungrounded) else _checked(found, shape, name)
                for found in sites
            ]
            for sites, shape in zip(answers, shapes, strict=True)
        ]

    name = engine_label(detector)
    batch_size = detector.batch_size if isinstance(detector, BatchDetector) else 1
    if batch_size < 1:
        raise EngineAnswerError(f"the detector {name} takes {batch_size} images at a time, not 1")
    requests = list(site_requests(studies, positives, volumes=False))
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    discarded: list[Reject] = []
    grounded = 0
    for request, site, found in localize(requests, detector, load_radiograph, answer, batch_size):
        if isinstance(found, Ungrounded):
            rejects.append(request.reject(site, found))
            continue
        if not found.boxes:
            raise EngineAnswerError(
                f"the detector {name} gave an empty list for "
                f"{site_label(request.image_id, site.key)}: where it finds nothing, it has to "
                "answer `Ungrounded` with the reason"
            )
        boxes = [box for box in found.boxes if isinstance(box, Box)]
        faults = [fault for fault in found.boxes if isinstance(fault, Ungrounded)]
        discarded += [_discarded(request, site, fault) for fault in faults]
        if not boxes:
            rejects.append(request.reject(site, faults[0]))
            continue
        grounded += 1
        rows += [
            request.key_columns(site) | {"instance": i} | found.columns | box.to_row()
            for i, box in enumerate(boxes)
        ]
    asked = sum(len(request.sites) for request in requests)
    return StepOutput(table_from_rows("boxes", rows), rejects, asked, grounded, discarded)


def _detect(
    detector: Detector, images: Sequence[tuple[Radiograph, Sequence[Site]]]
) -> Sequence[Sequence[Sequence[Box] | Detection | Ungrounded]]:
    if isinstance(detector, BatchDetector):
        return detector.detect_batch(images)
    return [detector.detect(image, sites) for image, sites in images]


def _checked(found: Sequence[Box] | Detection, shape_yx: tuple[int, ...], asked: str) -> _Proposals:
    rows, columns = shape_yx
    given = found if isinstance(found, Detection) else Detection(tuple(found))
    boxes = [checked_box(box, (rows, columns)) for box in given.boxes]
    return _Proposals(boxes, {"detector": given.engine or asked, "forced": given.forced})


def _discarded(request: SiteRequest, site: Site, why: Ungrounded) -> Reject:
    """A proposal; its site has no part in the key, since another box may have been kept there."""
    label = f"a box of {site_label(request.image_id, site.key)}"
    return Reject(request.study_id, label, why.reason, why.detail, image_id=request.image_id)
