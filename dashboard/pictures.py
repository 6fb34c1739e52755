"""The pictures of an article, made from its image; one image is in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dashboard.articles import Article, Finding
from dashboard.views import (
    Shape,
    box_shape,
    mask_shape,
    outline_shape,
    radiograph_view,
    slice_view,
)
from storage.images.loading import load_radiograph, load_volume
from storage.images.types import ImageError, Volume
from storage.images.vocabulary import is_volume
from storage.imaging.slice_selection import (
    MaskProfile,
    WindowedSlice,
    best_slice,
    choose_slices,
)
from storage.imaging.windows import Window, window_of
from storage.records import Row
from taxonomy.targets import load_taxonomy


def add_pictures(article: Article, image: Row | None) -> None:
    """Give an article its pictures, or a placeholder that says why it has none.

    Args:
        article: the grounded report, laid out.
        image: the image of the study that the report is grounded in, if it has one.
    """
    if image is None:
        article.placeholder = "no_image"
        return
    try:
        if is_volume(image["modality"]):
            _add_slices(article, load_volume(Path(image["uri"])))
        else:
            _add_radiograph(article, image)
    except ImageError as error:
        article.placeholder = error.reason


def _add_radiograph(article: Article, image: Row) -> None:
    radiograph = load_radiograph(Path(image["uri"]))
    _check_shape(image["shape"], radiograph.pixels.shape)
    shapes = []
    for finding in article.findings:
        shapes += [box_shape(finding.number, box) for box in finding.boxes_px]
        if finding.mask is not None:
            shapes.append(outline_shape(finding.number, finding.mask.voxels))
        finding.view = 0 if finding.boxes or finding.mask else None
    article.views = [radiograph_view(radiograph, shapes)]


def _add_slices(article: Article, volume: Volume) -> None:
    grounded = [finding for finding in article.findings if finding.boxes or finding.mask]
    profiles = [
        MaskProfile.of(
            finding.number,
            _voxels(finding, volume),
            target_window(finding.target),
            comes_first=finding.category == "abnormality",
        )
        for finding in grounded
    ]
    slices = choose_slices(profiles, volume.hu.shape)
    outlines: dict[WindowedSlice, list[Shape]] = {shown: [] for shown in slices}
    for finding in grounded:  # decoded again: all of them at once would not fit in memory
        voxels = _voxels(finding, volume)
        for shown in slices:
            if shape := mask_shape(finding.number, voxels, shown):
                outlines[shown].append(shape)
    article.views = [slice_view(volume, shown, shapes) for shown, shapes in outlines.items()]
    _point_to_slices(article, profiles, slices)


def target_window(target: str | None) -> Window:
    """The CT window that a target is read in; None for one that the taxonomy does not know."""
    known = load_taxonomy().targets.get(target or "")
    return window_of(known.group if known else None)


def _voxels(finding: Finding, volume: Volume) -> NDArray[np.bool_]:
    """What grounds a finding in a volume, as one mask (x, y, z): its mask and its boxes."""
    if finding.mask is not None:
        voxels = finding.mask.voxels
        _check_shape(volume.hu.shape, voxels.shape)
    else:
        voxels = np.zeros(volume.hu.shape, np.bool_)
    for box in finding.boxes:
        low = np.clip(np.floor(box.corners[0]).astype(int), 0, np.array(voxels.shape) - 1)
        high = np.maximum(np.ceil(box.corners[1]).astype(int), low + 1)  # one voxel at least
        voxels[tuple(map(slice, low, high))] = True
    return voxels


def _point_to_slices(
    article: Article, profiles: Sequence[MaskProfile], slices: Sequence[WindowedSlice]
) -> None:
    best = {profile.number: best_slice(profile, slices) for profile in profiles}
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
