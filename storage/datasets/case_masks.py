"""Files of masks to gold masks on the grid of the image that they were drawn on.

A label that a file could hold and does not is a mask without voxels: whoever drew the masks found
none of it, which makes it a negative target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from storage.gold import GoldMask
from storage.images import dicom_series, raster_labels, volume_files
from storage.images.types import ImageDescription, ImageError
from storage.images.voxels import to_ras
from storage.masks import mask_box
from storage.records import Laterality, Mask

TOLERANCE = 1e-2
"""How far the numbers of two affines may lie apart, in mm and mm a voxel: the paper's."""

Ids = NDArray[np.unsignedinteger[Any]]
LeftOut = tuple[str, str, str]
"""What of a case is left out, why (a reason code), and a sentence."""


class MasksError(Exception):
    """Masks that cannot be used; the case is rejected with the reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class MaskFile:
    """A file of masks, and what its values mean.

    path: of a stack of pictures, one a slice, the folder that holds them.
    values: the values of each label; two labels may share a value.
    rest: the label of all values above 0 that no label has; None if there should be none.
    instances: whether each value of `rest` is an instance of its own.
    packed: whether each bit of a value, not the value, is a label.
    misplaced: whether the header's geometry is known to be wrong, so that the image's counts.
    part: whether the file may hold only a part of the image's grid, as 3D Slicer crops it.
    stacked: the pattern of the names in the folder of a stack.
    sides: the side that a label names where its target does not.
    optional: whether the case is a study without this file.
    """

    path: Path
    values: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rest: str | None = None
    instances: bool = False
    packed: bool = False
    misplaced: bool = False
    part: bool = False
    stacked: str | None = None
    sides: Mapping[str, Laterality] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True)
class Canvas:
    """The image that masks lie on, as its headers describe it."""

    image_id: str
    path: Path
    described: ImageDescription

    def differs(self, shape: tuple[int, ...], affine: NDArray[np.float64] | None) -> str | None:
        """How another grid differs from the image's; None if it does not."""
        own = self.described
        if shape != own.shape:
            return f"{_sizes(shape)} and {_sizes(own.shape)} voxels"
        if affine is None or own.affine is None:
            return None
        apart = float(np.abs(affine - own.affine).max())
        return f"their affines are up to {apart:.3g} apart" if apart > TOLERANCE else None

    def start_of_part(
        self, shape: tuple[int, ...], affine: NDArray[np.float64]
    ) -> tuple[int, ...] | None:
        """The image's voxel where a part of its grid begins; None if it is none."""
        own = self.described
        if own.affine is None:
            return None
        exact = np.linalg.solve(own.affine[:3, :3], affine[:3, 3] - own.affine[:3, 3])
        start = np.rint(exact)
        moved = own.affine.copy()
        moved[:3, 3] += own.affine[:3, :3] @ start
        inside = (start >= 0).all() and (start + shape <= own.shape).all()
        if not inside or np.abs(moved - affine).max() > TOLERANCE:
            return None
        return tuple(int(index) for index in start)

    @cached_property
    def stored_affine(self) -> NDArray[np.float64]:
        """Voxel index along the axes of the image's file to RAS mm."""
        return volume_files.stored_affine(self.path)


@dataclass(frozen=True)
class _Labels:
    """The ids of a file, in (a part of) the image's grid."""

    ids: Ids
    start: tuple[int, ...]
    canvas: Canvas

    def mask(self, found: NDArray[np.bool_], at: tuple[int, ...]) -> Mask:
        """A mask of voxels that begin at a voxel of the ids."""
        start = tuple(a + b for a, b in zip(self.start, at, strict=True))
        described = self.canvas.described
        return Mask.of_part(found, start, described.shape, described.affine)


def gold_masks(
    files: Iterable[MaskFile], canvas: Canvas, targets: Mapping[str, str | None]
) -> tuple[list[GoldMask], list[LeftOut]]:
    """The masks of a case, and what is left out of it.

    Raises:
        MasksError: if a file that is not optional cannot be read or has another grid than the
            image, or no file can be used.
    """
    masks: list[GoldMask] = []
    left_out: list[LeftOut] = []
    missing: list[MaskFile] = []
    for file in files:
        if not file.path.exists():
            missing.append(file)
            continue
        try:
            labels = _labels(file, canvas)
        except MasksError as error:
            if not file.optional:
                raise
            left_out.append((file.path.name, error.reason, str(error)))
            continue
        seen = Counter(mask.label for mask in masks)
        for label, instance, mask in _masks(file, labels, left_out):
            masks.append(
                GoldMask(
                    canvas.image_id,
                    mask,
                    label,
                    targets.get(label),
                    file.sides.get(label),
                    instance=seen[label] + instance,
                )
            )
    needed = [file for file in missing if not file.optional]
    if not masks and left_out:
        raise MasksError(*left_out[0][1:])
    if needed or not masks:
        at = (needed or missing)[0].path if missing else canvas.path
        raise MasksError("mask_not_found", f"{at} is not there: the image has no masks")
    if missing:
        names = ", ".join(file.path.name for file in missing)
        left_out.append(("masks", "mask_not_found", f"these files are not there: {names}"))
    return masks, left_out


def _labels(file: MaskFile, canvas: Canvas) -> _Labels:
    """The ids of a file on the grid of its image.

    Raises:
        MasksError: if it cannot be read, or has another grid.
    """
    try:
        return _read_labels(file, canvas)
    except ImageError as error:
        raise MasksError(error.reason, error.detail) from error


def _read_labels(file: MaskFile, canvas: Canvas) -> _Labels:
    described = canvas.described
    origin = (0,) * len(described.shape)
    if described.affine is None:
        ids = raster_labels.read(file.path)
        if differs := canvas.differs(ids.shape, None):
            raise MasksError("grids_differ", f"{file.path} is not on its image's grid: {differs}")
        return _Labels(ids, origin, canvas)
    if file.stacked is not None:
        return _Labels(_stack(file, file.stacked, canvas), origin, canvas)
    placed = canvas.stored_affine if file.misplaced else None
    volume, affine = volume_files.read_label_ids(file.path, placed)
    differs = canvas.differs(volume.shape, affine)
    if differs and file.part:
        start = canvas.start_of_part(volume.shape, affine)
        if start is not None:
            return _Labels(volume, start, canvas)
    if differs:
        raise MasksError("grids_differ", f"{file.path} is not on its image's grid: {differs}")
    return _Labels(volume, origin, canvas)


def _stack(file: MaskFile, pattern: str, canvas: Canvas) -> Ids:
    """Pictures of the slices of a DICOM series, as many, in the order of its files' names."""
    series = dicom_series.stack(canvas.path, canvas.described.modality)
    pictures = sorted(path for path in file.path.glob(pattern) if not path.name.startswith("."))
    if len(pictures) != len(series.slices):
        raise MasksError(
            "grids_differ",
            f"{file.path} has {len(pictures)} pictures for the {len(series.slices)} slices of "
            f"{canvas.path}",
        )
    by_name = sorted(range(len(pictures)), key=lambda index: series.slices[index].path.name)
    ids = np.zeros(series.shape, np.uint16)
    for picture, index in zip(pictures, by_name, strict=True):
        labels = raster_labels.read(picture)
        if labels.shape[::-1] != series.shape[:2]:
            raise MasksError("grids_differ", f"{picture} has not the size of its slice")
        ids[:, :, index] = labels.T
    return to_ras(ids, series.affine)


def _masks(
    file: MaskFile, labels: _Labels, left_out: list[LeftOut]
) -> Iterator[tuple[str, int, Mask]]:
    """Label, instance and mask of all that the file could hold."""
    if file.packed:
        yield from _packed(file, labels, left_out)
        return
    extents = ndimage.find_objects(_signed(labels.ids))
    present = {value: box for value, box in enumerate(extents, start=1) if box is not None}
    known = {value for values in file.values.values() for value in values}
    for label, values in file.values.items():
        yield label, 0, _one(labels, values, [present[v] for v in values if v in present])
    others = {value: box for value, box in present.items() if value not in known}
    if file.rest is None:
        if others:
            voxels = int(np.isin(labels.ids, list(others)).sum())
            said = f"{file.path.name} has the values {_few(others)} ({voxels:,} voxels)"
            left_out.append((file.path.name, "label_unknown", said + ", which mean nothing"))
    elif file.instances and others:
        for instance, (value, box) in enumerate(sorted(others.items())):
            yield file.rest, instance, _one(labels, (value,), [box])
    else:
        yield file.rest, 0, _one(labels, tuple(others), list(others.values()))


def _one(labels: _Labels, values: tuple[int, ...], boxes: list[tuple[slice, ...]]) -> Mask:
    """The voxels with any of the values, which lie in the boxes."""
    box = tuple(
        slice(min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes))
        if boxes
        else slice(0, 0)
        for axis in range(labels.ids.ndim)
    )
    part = labels.ids[box]
    found = part == values[0] if len(values) == 1 else np.isin(part, values)
    return labels.mask(np.asarray(found, np.bool_), tuple(extent.start for extent in box))


def _packed(
    file: MaskFile, labels: _Labels, left_out: list[LeftOut]
) -> Iterator[tuple[str, int, Mask]]:
    """Overlapping masks in one picture: bit i of a pixel is set where label i is."""
    spare = labels.ids.copy()
    for label, bits in file.values.items():
        wanted = labels.ids.dtype.type(sum(1 << bit for bit in bits))
        found = (labels.ids & wanted) != 0
        spare &= ~wanted
        box = mask_box(found)
        yield label, 0, labels.mask(found[box], tuple(extent.start for extent in box))
    if spare.any():
        said = f"{file.path.name} has bits ({int((spare != 0).sum()):,} pixels) that mean nothing"
        left_out.append((file.path.name, "label_unknown", said))


def _signed(ids: Ids) -> NDArray[Any]:
    """`find_objects` makes a list as long as the largest value."""
    if ids.dtype.itemsize > 2 and ids.max(initial=0) > np.iinfo(np.uint16).max:
        raise MasksError("label_unknown", "values above 65535 are no labels")
    return ids


def _few(values: Iterable[int]) -> str:
    numbers = sorted(values)
    return ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")


def _sizes(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
