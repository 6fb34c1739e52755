"""Localize: boxes on frontal radiographs, masks on CT volumes, for what the report states.

What is asked for is a site: a target with the side and zone that the words give it. Every site
of every image gets boxes, a mask, or a reason; a box is never forced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from storage.images.loading import load_radiograph, load_volume
from storage.images.types import ImageError, Radiograph, Volume
from storage.masks import encode_mask
from storage.rejects import Reject
from storage.shards import table_from_rows
from tasks.engines.protocols import Box, Detector, Mask, Modifiers, Segmenter, Site, Ungrounded
from tasks.filter import modifiers_of
from tasks.step import StepOutput

VOLUME_MODALITIES = frozenset({"CT"})
LATERAL_VIEWS = frozenset({"LATERAL", "LL", "RL", "LLD", "RLD", "LARGE LATERAL"})

ImageRow = dict[str, Any]


def groundable_images(images: Sequence[ImageRow]) -> list[ImageRow]:
    """The images of a study that phrases are grounded in: volumes and frontal radiographs.

    A radiograph whose view the dataset does not give counts: the detector decides.
    """
    return [image for image in images if image["view"] not in LATERAL_VIEWS]


def site_name(image_id: str | None, site: Site) -> str:
    """What a site of an image is called in the rejects: `<image>: <target> (right, basal)`."""
    words = [site.modifiers.laterality, *site.modifiers.zones]
    place = ", ".join(word for word in words if word)
    return f"{image_id or 'no image'}: {site.target}" + (f" ({place})" if place else "")


def sites_by_study(positives: pa.Table) -> dict[str, list[Site]]:
    """The distinct sites of each study, in order of first mention.

    Two phrases of one target, side and zones are one site, with the larger count of the two.
    """
    found: dict[str, dict[tuple[Any, ...], Site]] = defaultdict(dict)
    for row in positives.select(["study_id", "target", "modifiers"]).to_pylist():
        site = site_of(row["target"], row["modifiers"])
        key = (site.target, site.modifiers.laterality, site.modifiers.zones)
        known = found[row["study_id"]].get(key)
        counts = [s.modifiers.count or 0 for s in (site, known) if s is not None]
        modifiers = Modifiers(key[1], key[2], max(counts) or None)
        found[row["study_id"]][key] = Site(site.target, modifiers)
    return {study: list(sites.values()) for study, sites in found.items()}


def site_of(target: str, modifiers: dict[str, Any]) -> Site:
    """The site that a phrase's target and modifiers cell name."""
    return Site(target, modifiers_of(modifiers))


def detect_boxes(studies: pa.Table, positives: pa.Table, detector: Detector) -> StepOutput:
    """Ask the detector for every site on every frontal radiograph of its study.

    Sites of a study that has no image to ground in are set aside here too.
    """

    def answer(image: ImageRow, sites: list[Site]) -> list[list[Box] | Ungrounded]:
        radiograph: Radiograph = load_radiograph(Path(image["uri"]))
        return detector.detect(radiograph, sites)

    requests = _requests(studies, positives, volumes=False)
    name = "{name} {version}".format(**detector.fingerprint)
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    grounded = asked = 0
    for key, image, sites in requests:
        asked += len(sites)
        for site, found in zip(sites, _answers(answer, image, sites), strict=True):
            if isinstance(found, Ungrounded):
                rejects.append(_reject(key, image, site, found))
                continue
            grounded += 1
            rows += [
                _key(key, image, site) | {"instance": i, "detector": name} | _box_row(box)
                for i, box in enumerate(found)
            ]
    return StepOutput(table_from_rows("boxes", rows), rejects, asked, grounded)


def segment_masks(studies: pa.Table, positives: pa.Table, segmenter: Segmenter) -> StepOutput:
    """Ask the segmenter for every site on every CT volume of its study."""
    name = "{name} {version}".format(**segmenter.fingerprint)
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    asked = 0

    def answer(image: ImageRow, sites: list[Site]) -> list[dict[str, Any] | Ungrounded]:
        volume = load_volume(Path(image["uri"]))
        found = segmenter.segment(volume, sites)
        return [_mask_row(volume, f) if isinstance(f, Mask) else f for f in found]

    for key, image, sites in _requests(studies, positives, volumes=True):
        asked += len(sites)
        for site, found in zip(sites, _answers(answer, image, sites), strict=True):
            if isinstance(found, Ungrounded):
                rejects.append(_reject(key, image, site, found))
            else:
                rows.append(_key(key, image, site) | found | {"segmenter": name})
    return StepOutput(table_from_rows("masks", rows), rejects, asked, len(rows))


StudyKey = dict[str, str]
T = TypeVar("T")


def _requests(
    studies: pa.Table, positives: pa.Table, *, volumes: bool
) -> Iterator[tuple[StudyKey, ImageRow | None, list[Site]]]:
    """Image and sites of every study; the image is None for a study that has none to ground in.

    Radiographs and studies without an image are the detector's, volumes are the segmenter's.
    """
    sites = sites_by_study(positives)
    for study in studies.select(["dataset", "split", "study_id", "images"]).to_pylist():
        wanted = sites.get(study["study_id"])
        if not wanted:
            continue
        key = {name: study[name] for name in ("dataset", "split", "study_id")}
        images = groundable_images(study["images"])
        if not images and not volumes:
            yield key, None, wanted
        for image in images:
            if (image["modality"] in VOLUME_MODALITIES) == volumes:
                yield key, image, wanted


def _answers(
    ask: Callable[[ImageRow, list[Site]], list[T | Ungrounded]],
    image: ImageRow | None,
    sites: list[Site],
) -> list[T | Ungrounded]:
    if image is None:
        return [Ungrounded("no_image", "the study has no frontal radiograph or volume")] * len(
            sites
        )
    try:
        return ask(image, sites)
    except ImageError as error:
        return [Ungrounded(error.reason, error.detail)] * len(sites)


def _reject(key: StudyKey, image: ImageRow | None, site: Site, why: Ungrounded) -> Reject:
    name = site_name(image["image_id"] if image else None, site)
    return Reject(key["study_id"], name, why.reason, why.detail)


def _key(key: StudyKey, image: ImageRow | None, site: Site) -> dict[str, Any]:
    return key | {
        "image_id": image["image_id"] if image else None,
        "target": site.target,
        "laterality": site.modifiers.laterality,
        "zones": list(site.modifiers.zones),
    }


def _box_row(box: Box) -> dict[str, float]:
    return {name: getattr(box, name) for name in ("x_min", "y_min", "x_max", "y_max", "score")}


def _mask_row(volume: Volume, mask: Mask) -> dict[str, Any]:
    voxels = int(mask.voxels.sum())
    voxel_mm3 = abs(float(np.linalg.det(volume.affine[:3, :3])))
    return {
        "shape": list(mask.voxels.shape),
        "affine": volume.affine.ravel().tolist(),
        "mask": encode_mask(mask.voxels),
        "voxel_count": voxels,
        "volume_mm3": voxels * voxel_mm3,
        "score": mask.score,
    }
