"""Detect: boxes on frontal radiographs for what the report states as present."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from storage.images.loading import load_radiograph
from storage.images.types import Radiograph
from storage.records import Box, Site
from storage.rejects import Reject
from storage.shards import table_from_rows
from tasks.engines.protocols import BatchDetector, Detector, EngineAnswerError, Ungrounded
from tasks.sites import localize, site_label, site_requests
from tasks.step import StepOutput


def detect_boxes(studies: pa.Table, positives: pa.Table, detector: Detector) -> StepOutput:
    """Ask the detector for every site on every frontal radiograph of its study.

    Sites of a study that has no image to ground in are rejected here too.
    """

    def answer(
        images: Sequence[tuple[Radiograph, Sequence[Site]]],
    ) -> list[list[list[Box] | Ungrounded]]:
        if isinstance(detector, BatchDetector):
            return detector.detect_batch(images)
        return [detector.detect(image, sites) for image, sites in images]

    name = "{name} {version}".format(**detector.fingerprint)
    batch_size = detector.batch_size if isinstance(detector, BatchDetector) else 1
    requests = list(site_requests(studies, positives, volumes=False))
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    grounded = 0
    for request, site, found in localize(requests, load_radiograph, answer, batch_size):
        if isinstance(found, Ungrounded):
            rejects.append(request.reject(site, found))
            continue
        if not found:
            raise EngineAnswerError(
                f"the detector {name} gave an empty list for "
                f"{site_label(request.image_id, site.key)}: where it finds nothing, it has to "
                "answer `Ungrounded` with the reason"
            )
        grounded += 1
        rows += [
            request.key_columns(site) | {"instance": i, "detector": name} | box.to_row()
            for i, box in enumerate(found)
        ]
    asked = sum(len(request.sites) for request in requests)
    return StepOutput(table_from_rows("boxes", rows), rejects, asked, grounded)
