"""The pictures of an article: its image is opened here, one at a time, and let go again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dashboard.articles import Article, Finding, MaskKey, Row
from dashboard.cuts import Profile, best_cut, choose_cuts, measure
from dashboard.views import Cut, Shape, cut_view, mask_shape, radiograph_view
from storage.images.loading import load_radiograph, load_volume
from storage.images.types import ImageError, Volume
from storage.masks import decode_mask

VOLUME_MODALITIES = frozenset({"CT"})


def add_pictures(article: Article, image: Row | None, masks: Mapping[MaskKey, Row]) -> None:
    """Give an article its pictures, or a placeholder that says why it has none.

    Args:
        article: what was read from the store.
        image: the image of the study that the report is grounded in, if it has one.
        masks: rows of `masks` of that image.
    """
    found = [
        (finding, masks[finding.mask_key])
        for finding in article.findings
        if finding.mask_key is not None
    ]
    for finding, mask in found:
        finding.volume_mm3 = mask["volume_mm3"]
    if image is None:
        article.placeholder = "no_image"
        return
    try:
        if image["modality"] in VOLUME_MODALITIES:
            volume = load_volume(Path(image["uri"]))
            _add_cuts(article, volume, [(finding, mask["mask"]) for finding, mask in found])
        else:
            _add_radiograph(article, image)
    except ImageError as error:
        article.placeholder = error.reason


def _add_radiograph(article: Article, image: Row) -> None:
    radiograph = load_radiograph(Path(image["uri"]))
    _check_shape(image["shape"], radiograph.pixels.shape)
    boxes = [(finding.number, box) for finding in article.findings for box in finding.boxes]
    article.views = [radiograph_view(radiograph, boxes)]
    for finding in article.findings:
        finding.view = 0 if finding.boxes else None


def _add_cuts(article: Article, volume: Volume, encoded: Sequence[tuple[Finding, bytes]]) -> None:
    profiles = [_profile(finding, volume, data) for finding, data in encoded]
    cuts = choose_cuts(profiles, volume.hu.shape)
    outlines: dict[Cut, list[Shape]] = {cut: [] for cut in cuts}
    for finding, data in encoded:  # decoded again: all of them at once would not fit in memory
        mask = decode_mask(data)
        for cut in cuts:
            if shape := mask_shape(finding.number, mask, cut):
                outlines[cut].append(shape)
    article.views = [cut_view(volume, cut, shapes) for cut, shapes in outlines.items()]
    _point_to_cuts(article, profiles, cuts)


def _profile(finding: Finding, volume: Volume, data: bytes) -> Profile:
    mask: NDArray[np.bool_] = decode_mask(data)
    _check_shape(volume.hu.shape, mask.shape)
    return measure(finding.number, finding.target, finding.category, mask)


def _point_to_cuts(article: Article, profiles: Sequence[Profile], cuts: Sequence[Cut]) -> None:
    best = {found.number: best_cut(found, cuts) for found in profiles}
    for finding in article.findings:
        finding.view = best.get(finding.number)
    shown = sorted(
        (finding.category != "abnormality", finding.number, finding.view)
        for finding in article.findings
        if finding.view is not None
    )
    article.first_view = shown[0][2] if shown else 0


def _check_shape(recorded: Sequence[int] | None, found: Sequence[int]) -> None:
    if recorded is not None and tuple(recorded) != tuple(found):
        raise ImageError("image_changed", f"{tuple(recorded)} was grounded, {tuple(found)} found")
