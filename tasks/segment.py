"""Segment: masks in CT volumes for what the report states as present."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.images.loading import load_volume
from storage.records import Mask, MaskKey, Site
from storage.rejects import Reject
from storage.shards import table_from_rows
from tasks.engines.protocols import Segmenter, Ungrounded
from tasks.sites import ImageRow, answers_of, site_requests
from tasks.step import StepOutput


def segment_masks(studies: pa.Table, positives: pa.Table, segmenter: Segmenter) -> StepOutput:
    """Ask the segmenter for every site on every CT volume of its study."""

    def localize(image: ImageRow, sites: Sequence[Site]) -> list[Mask | Ungrounded]:
        volume = load_volume(Path(image["uri"]))
        # Encoded one by one, so that an engine that iterates holds one mask in memory at a time.
        return [
            answer
            if isinstance(answer, Ungrounded)
            else Mask.of(answer.voxels, volume.affine, answer.score)
            for answer in segmenter.segment(volume, sites)
        ]

    name = "{name} {version}".format(**segmenter.fingerprint)
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    asked = 0
    for request in site_requests(studies, positives, volumes=True):
        asked += len(request.sites)
        for site, found in answers_of(request, localize):
            if isinstance(found, Ungrounded):
                rejects.append(request.reject(site, found))
                continue
            key = request.key_columns(site) | MaskKey(site.key).to_row()
            rows.append(key | found.to_row() | {"segmenter": name})
    return StepOutput(table_from_rows("masks", rows), rejects, asked, len(rows))
