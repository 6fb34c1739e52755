"""Predictions in a store: grounded reports beside those of the pipeline.

A prediction is a separate part with a study, its image, its report, boxes and masks, and a
manifest; `status`, `sql`, `show` and the gallery read it like any other. Masks and boxes of a CT
are converted to its RAS+ grid, the grid of the store.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
)
from numpy.typing import NDArray

from model.inference.predict import Prediction
from storage.digests import content_digests
from storage.images.file_grid import FileGrid
from storage.images.loading import describe_image
from storage.manifests import (
    Manifest,
    manifest_path,
    read_manifest,
    recipe_digest,
    write_manifest,
)
from storage.records import (
    PREDICTION,
    AnyBox,
    GroundedReport,
    Grounding,
    Mask,
    Provenance,
    Tag,
    VolumeBox,
)
from storage.rejects import rejects_table
from storage.shards import MOST_PARTS, Part, shard_path, table_from_rows, write_shard
from storage.store import Store

STAGE = "predict"
SPLIT = "test"
"""Split of all predictions, which must not be trained on."""


@dataclass(frozen=True)
class Predictor:
    """What makes predictions, with all that decides them beside the image and the question.

    model: the folder of the trained model, by which people know it.
    weights: digest of the folder's content: a model may be trained further in its place.
    pointing, threshold: see `Pointer`; max_new_tokens: where an answer is cut off.
    """

    model: str
    weights: str
    pointing: str
    threshold: float
    max_new_tokens: int


def store_prediction(
    store: Store, dataset: str, prediction: Prediction, predictor: Predictor
) -> Part:
    """Write a prediction to a store; an earlier one of the same image, model and query is replaced.

    The manifest says which weights and settings made it, and of which image content.

    Args:
        store: where to.
        dataset: the name that the predictions have there.
        prediction: boxes and masks lie on the grid of the image's file.
        predictor: what made it.

    Raises:
        StoreError: if the store cannot be written.
    """
    identity = {
        "image": str(prediction.path.resolve()),
        "model": predictor.model,
        "query": prediction.question.query,
    }
    place = recipe_digest(STAGE, identity, {})
    part = _part(store, dataset, identity, place)
    report = _report(part, prediction, identity, f"{prediction.path.name}.{place[:8]}")
    tables = _tables(report, prediction, predictor.model)
    recipe = asdict(predictor) | identity
    inputs = {"image": content_digests([prediction.path])[prediction.path]}
    # Without its manifest a part does not count: none vouches for half of a new prediction.
    store.delete(manifest_path(STAGE, part))
    outputs = {
        table: write_shard(
            store, shard_path(table, part, STAGE), table, table_from_rows(table, rows)
        )
        for table, rows in tables.items()
    }
    rejects = rejects_table(part, STAGE, [])
    outputs["rejects"] = write_shard(store, shard_path("rejects", part, STAGE), "rejects", rejects)
    write_manifest(
        store,
        Manifest(
            stage=STAGE,
            part=part,
            digest=recipe_digest(STAGE, recipe, inputs),
            recipe=recipe,
            inputs=inputs,
            outputs=outputs,
            unit="image",
            rows_in=1,
            rows_out=1,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )
    return part


def _part(store: Store, dataset: str, identity: dict[str, str], place: str) -> Part:
    """The part of a prediction: numbered by a digest, so that two runs at once do not collide."""
    number = int(place, 16) % MOST_PARTS
    while True:
        part = Part(dataset, SPLIT, number)
        held = read_manifest(store, STAGE, part)
        if held is None or identity.items() <= held.recipe.items():
            return part
        number = (number + 1) % MOST_PARTS


def _report(
    part: Part, prediction: Prediction, identity: dict[str, str], study_id: str
) -> GroundedReport:
    grid = prediction.source.grid
    seen: Counter[Any] = Counter()
    tags = []
    for tag in sorted(prediction.tags, key=lambda tag: tag.start):
        # A model may ground one target twice: each mask is an instance of its own.
        instance = seen[tag.site]
        seen[tag.site] += tag.grounding.mask is not None
        tags.append(replace(tag, grounding=stored(tag.grounding, grid), instance=instance))
    provenance = Provenance(
        source=PREDICTION,
        localizer=identity["model"],
        model=identity["model"],
        query=identity["query"],
    )
    return GroundedReport(
        part.dataset, part.split, study_id, study_id, prediction.text, tuple(tags), provenance
    )


def _tables(
    report: GroundedReport, prediction: Prediction, model: str
) -> dict[str, list[dict[str, Any]]]:
    key = {"dataset": report.dataset, "split": report.split, "study_id": report.study_id}
    about = describe_image(prediction.path)
    image = {"image_id": report.image_id, "uri": str(prediction.path.resolve())} | {
        name: getattr(about, name) for name in ("modality", "view", "shape", "spacing_mm")
    }
    return {
        "studies": [key | {"images": [image], "source": PREDICTION}],
        "boxes": [
            _site(key, report, tag) | {"instance": number, "detector": model} | box.to_row()
            for tag, number, box in _numbered_boxes(report)
        ],
        "masks": [
            _site(key, report, tag) | tag.mask_key.to_row() | mask.to_row() | {"segmenter": model}
            for tag in report.tags
            if (mask := tag.grounding.mask) is not None
        ],
        "grounded_reports": [report.to_row()],
    }


def _site(key: dict[str, str], report: GroundedReport, tag: Tag) -> dict[str, Any]:
    return key | {"image_id": report.image_id} | tag.site.to_row()


def _numbered_boxes(report: GroundedReport) -> list[tuple[Tag, int, AnyBox]]:
    """Boxes with their number within the target and site, which several tags may share."""
    seen: Counter[Any] = Counter()
    found = []
    for tag in report.tags:
        for box in tag.grounding.boxes or ():
            found.append((tag, seen[tag.site], box))
            seen[tag.site] += 1
    return found


def stored(grounding: Grounding, grid: FileGrid) -> Grounding:
    """A grounding on the grid of an image's file, brought to the grid that the store uses.

    A radiograph's mask loses its slice axis; boxes and masks of a CT go to its RAS+ grid.
    """
    boxes, mask = grounding.boxes, grounding.mask
    if grid.affine is None:
        return replace(grounding, mask=mask and Mask.of(mask.voxels[0], None))
    return replace(
        grounding,
        boxes=None if boxes is None else tuple(_ras_box(box, grid) for box in boxes),
        mask=mask and _ras_mask(mask, grid.affine),
    )


def _ras_mask(mask: Mask, affine: NDArray[np.float64]) -> Mask:
    orientation = io_orientation(affine)
    ras_affine = affine @ inv_ornt_aff(orientation, mask.shape)
    return Mask.of(apply_orientation(mask.voxels, orientation), ras_affine)


def _ras_box(box: AnyBox, grid: FileGrid) -> VolumeBox:
    """Corners along the file's axes to corners along x, y, z of the RAS+ grid."""
    return VolumeBox.from_corners(grid.boxes_to_ras(box.corners[None])[0], box.score)
