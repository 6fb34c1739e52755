"""Detect: boxes on frontal radiographs for what the report states as present."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.images.loading import load_radiograph
from storage.records import Box, Site
from storage.rejects import Reject
from storage.shards import table_from_rows
from tasks.engines.protocols import Detector, Ungrounded
from tasks.sites import ImageRow, answers_of, site_requests
from tasks.step import StepOutput


def detect_boxes(studies: pa.Table, positives: pa.Table, detector: Detector) -> StepOutput:
    """Ask the detector for every site on every frontal radiograph of its study.

    Sites of a study that has no image to ground in are rejected here too.
    """

    def localize(image: ImageRow, sites: Sequence[Site]) -> list[list[Box] | Ungrounded]:
        return detector.detect(load_radiograph(Path(image["uri"])), sites)

    name = "{name} {version}".format(**detector.fingerprint)
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    asked = grounded = 0
    for request in site_requests(studies, positives, volumes=False):
        asked += len(request.sites)
        for site, found in answers_of(request, localize):
            if isinstance(found, Ungrounded):
                rejects.append(request.reject(site, found))
                continue
            grounded += 1
            rows += [
                request.key_columns(site) | {"instance": i, "detector": name} | box.to_row()
                for i, box in enumerate(found)
            ]
    return StepOutput(table_from_rows("boxes", rows), rejects, asked, grounded)
