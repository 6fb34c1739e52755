"""Segment: masks in CT volumes for what the report states as present."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from storage.images.loading import load_volume
from storage.images.types import Volume
from storage.records import Mask, MaskKey, Site
from storage.rejects import Reject
from storage.shards import table_from_rows
from tasks.answers import checked_mask, engine_label
from tasks.engines.protocols import Segmentation, Segmenter, Ungrounded
from tasks.sites import localize, site_requests
from tasks.step import StepOutput


def segment_masks(studies: pa.Table, positives: pa.Table, segmenter: Segmenter) -> StepOutput:
    """Ask the segmenter for every site on every CT volume of its study.

    Raises:
        EngineAnswerError: if the segmenter does not keep to its protocol.
    """

    def answer(
        volumes: Sequence[tuple[Volume, Sequence[Site]]],
    ) -> list[list[tuple[Mask, str] | Ungrounded]]:
        # Encoded one by one, so that an engine that iterates holds one mask in memory at a time.
        return [
            [_checked(found, volume, name) for found in segmenter.segment(volume, sites)]
            for volume, sites in volumes
        ]

    name = engine_label(segmenter)
    requests = list(site_requests(studies, positives, volumes=True))
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for request, site, found in localize(requests, segmenter, load_volume, answer):
        if isinstance(found, Ungrounded):
            rejects.append(request.reject(site, found))
            continue
        key = request.key_columns(site) | MaskKey(site.key).to_row()
        mask, made_by = found
        rows.append(key | mask.to_row() | {"segmenter": made_by})
    asked = sum(len(request.sites) for request in requests)
    return StepOutput(table_from_rows("masks", rows), rejects, asked, len(rows))


def _checked(
    found: Segmentation | Ungrounded, volume: Volume, asked: str
) -> tuple[Mask, str] | Ungrounded:
    """The mask and the engine that made it."""
    if isinstance(found, Ungrounded):
        return found
    mask = checked_mask(found, volume)
    return mask if isinstance(mask, Ungrounded) else (mask, found.engine or asked)
