"""Sites to localize: what `detect` and `segment` share.

A site is a target with the side and zones that the report states. Every site on every image of
its study gets boxes, a mask, or a reject with the reason; a box is never forced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from storage.images.header_correction import split_correction
from storage.images.prefetch import map_decoded
from storage.images.types import ImageError
from storage.images.vocabulary import is_groundable, is_volume
from storage.records import Modifiers, Site, SiteKey
from storage.rejects import Reject
from tasks.answers import require_as_many
from tasks.engines.protocols import Engine, Ungrounded

ImageRow = dict[str, Any]
Image = TypeVar("Image")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SiteRequest:
    """The sites of one study on one of its images; `image` is None if it has none to ground in."""

    dataset: str
    split: str
    study_id: str
    image: ImageRow | None
    sites: tuple[Site, ...]

    @property
    def image_id(self) -> str | None:
        """Id of the image, if there is one."""
        return self.image["image_id"] if self.image else None

    def key_columns(self, site: Site) -> dict[str, Any]:
        """The columns that `boxes` and `masks` have in common."""
        place = {"dataset": self.dataset, "split": self.split, "study_id": self.study_id}
        return place | {"image_id": self.image_id} | site.key.to_row()

    def reject(self, site: Site, why: Ungrounded) -> Reject:
        """The reject of a site that was not localized."""
        label = site_label(self.image_id, site.key)
        return Reject(
            self.study_id, label, why.reason, why.detail, image_id=self.image_id, site=site.key
        )


def groundable_images(images: Sequence[ImageRow]) -> list[ImageRow]:
    """The images of a study that phrases are grounded in: volumes and frontal radiographs.

    A radiograph whose view the dataset does not give is among them: the detector decides.
    """
    return [image for image in images if is_groundable(image["view"])]


def site_label(image_id: str | None, site: SiteKey) -> str:
    """A site on an image in words, for people: `<image>: <target> (right, basal)`."""
    words = ", ".join(word for word in (site.laterality, *site.zones) if word)
    return f"{image_id or 'no image'}: {site.target}" + (f" ({words})" if words else "")


def sites_by_study(positives: pa.Table) -> dict[str, list[Site]]:
    """The distinct sites of each study, in order of first mention.

    Phrases of the same target, side and zones are one site, with the largest count of theirs.
    """
    found: dict[str, dict[SiteKey, Site]] = defaultdict(dict)
    for row in positives.select(["study_id", "target", "modifiers"]).to_pylist():
        sites = found[row["study_id"]]
        site = Site(row["target"], Modifiers.from_row(row["modifiers"]))
        known = sites.get(site.key, site)
        count = max(site.modifiers.count or 0, known.modifiers.count or 0) or None
        modifiers = Modifiers(site.modifiers.laterality, site.modifiers.zones, count)
        sites[site.key] = Site(site.target, modifiers)
    return {study: list(sites.values()) for study, sites in found.items()}


def site_requests(
    studies: pa.Table, positives: pa.Table, *, volumes: bool
) -> Iterator[SiteRequest]:
    """What to localize: on the volumes, or on the radiographs, of every study with positives.

    A study without an image to ground in is among the radiographs, so that it occurs once.
    """
    sites = sites_by_study(positives)
    for study in studies.select(["dataset", "split", "study_id", "images"]).to_pylist():
        wanted = tuple(sites.get(study["study_id"], ()))
        if not wanted:
            continue
        key = study["dataset"], study["split"], study["study_id"]
        images = groundable_images(study["images"])
        if not images and not volumes:
            yield SiteRequest(*key, None, wanted)
        for image in images:
            if is_volume(image["modality"]) == volumes:
                yield SiteRequest(*key, image, wanted)


def image_files(studies: pa.Table, positives: pa.Table, *, volumes: bool) -> list[Path]:
    """The files and folders that localizing will open, in order."""
    named = set(pc.unique(positives["study_id"]).to_pylist())
    rows = studies.select(["study_id", "images"]).to_pylist()
    uris = (
        image["uri"]
        for study in rows
        if study["study_id"] in named
        for image in groundable_images(study["images"])
        if is_volume(image["modality"]) == volumes
    )
    return [split_correction(Path(uri))[0] for uri in uris]


def localize(
    requests: Iterable[SiteRequest],
    engine: Engine,
    load: Callable[[Path], Image],
    answer: Callable[[Sequence[tuple[Image, Sequence[Site]]]], Sequence[Sequence[T | Ungrounded]]],
    batch_size: int = 1,
) -> Iterator[tuple[SiteRequest, Site, T | Ungrounded]]:
    """The localizer's answer for each site of each request, order kept.

    Sites on an image that cannot be read get its fault. The next images are decoded while the
    localizer works on a batch; batches go across studies.

    Args:
        requests: what to localize.
        engine: the localizer, to name it in errors.
        load: reads an image's file.
        answer: asks the localizer: images with their sites in, one answer per site out.
        batch_size: images that the localizer takes at a time.

    Raises:
        EngineAnswerError: if the localizer gives more answers than sites, or fewer.
    """

    def decode(request: SiteRequest) -> Image | None:
        return None if request.image is None else load(Path(request.image["uri"]))

    def use(
        batch: Sequence[tuple[SiteRequest, Image | ImageError | None]],
    ) -> list[tuple[SiteRequest, Site, T | Ungrounded]]:
        readable = [
            (image, request.sites)
            for request, image in batch
            if image is not None and not isinstance(image, ImageError)
        ]
        given = iter(answer(readable) if readable else ())
        found: list[tuple[SiteRequest, Site, T | Ungrounded]] = []
        for request, image in batch:
            answers: Sequence[T | Ungrounded] = _faults(request, image) or next(given)
            require_as_many(engine, answers, request.sites, f"sites of {request.image_id}")
            found += [(request, *pair) for pair in zip(request.sites, answers, strict=True)]
        return found

    return map_decoded(use, requests, decode, batch_size)


def _faults(request: SiteRequest, image: object) -> list[Ungrounded]:
    """Why each site of a request cannot be localized; empty if its image was read."""
    if image is None:
        fault = Ungrounded("no_image", "the study has no frontal radiograph or volume")
    elif isinstance(image, ImageError):
        fault = Ungrounded(image.reason, image.detail)
    else:
        return []
    return [fault] * len(request.sites)
