"""LIDC-IDRI: nodules that up to four readers drew on a chest CT, fused to one mask a nodule.

Readers' marks that overlap are one nodule, and a voxel is part of it if at least half of the
readers who marked the nodule drew it. Lungs and trachea come from LUNA16, where it is there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from skimage.draw import line, polygon

from storage.datasets.case_masks import Canvas, MaskFile, MasksError, gold_masks
from storage.datasets.declaration import Declaration, checked
from storage.datasets.lidc_xml import Mark, Outline, marks, series_of
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.gold import Gold, GoldMask
from storage.images import dicom, dicom_series
from storage.images.decoding import decoding
from storage.images.dicom_series import Stack
from storage.images.types import ImageError
from storage.images.voxels import to_ras
from storage.paths import listing_digest
from storage.records import Mask
from storage.rejects import Reject

NODULE = "nodule"
CONSENSUS = "consensus of 50 %"
LUNGS = {"left lung": (3,), "right lung": (4,), "trachea": (5,)}
"""The values of LUNA16's masks."""

_SLICE_MM = 0.05
"""How far the position in the XML may lie from that in the DICOM header: both are rounded."""

Voxels = NDArray[np.int64]
"""Flat indices into (columns, rows, slices), each once."""


class Layout(BaseModel):
    """Where the parts are.

    lungs: the folder of LUNA16's masks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lungs: str


class LidcReader:
    """Reads the XML files wherever they are: beside their series, or as a download of their own."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source
        self._layout = checked(Layout, declaration.layout, declaration.file, "layout")
        self._split = declaration.splits[0]

    def records(self) -> Iterator[SourceRecord]:
        """A record per CT that has an XML file."""
        if not self._files:
            raise DatasetError(
                f"{self._source} holds no XML file of LIDC-IDRI: get the annotations too "
                "(LIDC-XML-only.zip) and unpack them below this folder"
            )
        for series, path in self._files.items():
            yield SourceRecord(self._split, series, _patient(path))

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and of the paths, sizes and times of the XML files."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        digest.update(listing_digest(self._files.values()).encode())
        digest.update(listing_digest(self._folders_with_dicom).encode())
        return digest.hexdigest()

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The study of each scan; one whose series or XML cannot be used is rejected."""
        for record in records:
            path = self._files[record.key]
            try:
                yield self._study(record.key, path)
            except ImageError as error:
                yield Reject(record.key, path.name, error.reason, error.detail)
            except ValueError as error:
                yield Reject(record.key, path.name, "xml_unreadable", str(error))

    def _study(self, series: str, path: Path) -> Study:
        folder = self._folder(series, path)
        described = dicom_series.describe(folder)
        stack = dicom_series.stack(folder)
        canvas = Canvas(series, folder, described)
        drawn = marks(path)
        masks = list(self._nodules(canvas, stack, drawn))
        left_out = [Reject(series, path.name, "not_part_of_series", s) for s in described.left_out]
        lungs = MaskFile(self._source / self._layout.lungs / f"{series}.mhd", LUNGS)
        if lungs.path.exists():
            try:
                found, unknown = gold_masks([lungs], canvas, self._declaration.targets)
                masks += found
                left_out += [Reject(series, what, why, said) for what, why, said in unknown]
            except MasksError as error:
                left_out.append(Reject(series, lungs.path.name, error.reason, str(error)))
        image = StudyImage(series, str(folder), "CT", None, described.shape, described.spacing_mm)
        return Study(
            study_id=series,
            findings=None,
            impression=None,
            source=self._declaration.source,
            patient_id=_patient(folder) or _patient(path),
            images=(image,),
            gold=Gold(masks=tuple(masks)),
            left_out=tuple(left_out),
        )

    def _nodules(self, canvas: Canvas, stack: Stack, drawn: list[Mark]) -> Iterator[GoldMask]:
        """One mask a nodule from head to feet; an empty one if no reader marked any of any size."""
        target = self._declaration.targets.get(NODULE)
        affine = canvas.described.affine
        empty = np.zeros(stack.shape, np.bool_)
        if not drawn:
            yield GoldMask(
                canvas.image_id, Mask.of(to_ras(empty, stack.affine), affine), NODULE, target
            )
        fused = (_fused(group) for group in _groups(stack, drawn))
        highest = lambda nodule: -int((nodule[0] % stack.shape[2]).max())  # noqa: E731
        for instance, (voxels, readers) in enumerate(sorted(fused, key=highest)):
            mask = empty.copy()
            mask.ravel()[voxels] = True
            yield GoldMask(
                canvas.image_id,
                Mask.of(to_ras(mask, stack.affine), affine),
                NODULE,
                target,
                instance=instance,
                annotator=CONSENSUS,
                readers=readers,
            )

    @cached_property
    def _files(self) -> Mapping[str, Path]:
        """The XML file of each CT series, in the order of their paths."""
        found: dict[str, Path] = {}
        for path in sorted(self._source.rglob("*.xml")):
            if not path.name.startswith(".") and (series := series_of(path)):
                found.setdefault(series, path)
        return found

    @cached_property
    def _folders_with_dicom(self) -> list[Path]:
        return sorted({p.parent for p in self._source.rglob("*.dcm") if not p.name.startswith(".")})

    def _folder(self, series: str, xml: Path) -> Path:
        """The folder of a series: that of its XML file, or the one whose first header says so.

        Raises:
            ImageError: `image_not_found`.
        """
        if any(not path.name.startswith(".") for path in xml.parent.glob("*.dcm")):
            return xml.parent
        if (folder := self._folder_of_series.get(series)) is None:
            raise ImageError("image_not_found", f"the series {series} of {xml.name} is not there")
        return folder

    @cached_property
    def _folder_of_series(self) -> Mapping[str, Path]:
        found = {}
        for folder in self._folders_with_dicom:
            first = min(path for path in folder.glob("*.dcm") if not path.name.startswith("."))
            with decoding(first, "DICOM"):
                found[dicom.text(dicom.read_header(first), "SeriesInstanceUID")] = folder
        return found


def _patient(path: Path) -> str | None:
    found = re.search(r"LIDC-IDRI-\d{4}", str(path))
    return found[0] if found else None


def _groups(stack: Stack, drawn: list[Mark]) -> list[list[tuple[int, Voxels, Voxels]]]:
    """Marks that overlap, outlines included: reader, voxels within, voxels with the outline."""
    groups: list[list[tuple[int, Voxels, Voxels]]] = []
    for mark in drawn:
        if not mark.outlines:
            continue
        inside, around = _voxels(stack, mark)
        member = (mark.reader, inside if len(inside) else around, around)
        touching = [
            group
            for group in groups
            if any(np.intersect1d(around, other, assume_unique=True).size for _, _, other in group)
        ]
        groups = [group for group in groups if not any(group is other for other in touching)]
        groups.append([*(one for group in touching for one in group), member])
    return groups


def _fused(group: list[tuple[int, Voxels, Voxels]]) -> tuple[Voxels, int]:
    """What at least half of the readers of a group drew, and how many they are."""
    by_reader: dict[int, Voxels] = {}
    for reader, inside, _ in group:
        by_reader[reader] = np.union1d(by_reader.get(reader, inside), inside)
    voxels, votes = np.unique(np.concatenate(list(by_reader.values())), return_counts=True)
    return voxels[2 * votes >= len(by_reader)], len(by_reader)


def _voxels(stack: Stack, mark: Mark) -> tuple[Voxels, Voxels]:
    """The voxels within the outlines of a mark, and those with the outlines themselves."""
    columns, rows, _ = stack.shape
    planes: dict[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for outline in mark.outlines:
        at = _slice_at(stack, outline.z_mm)
        within, around = planes.setdefault(
            at, (np.zeros((columns, rows), np.bool_), np.zeros((columns, rows), np.bool_))
        )
        _fill(outline, within, around)
    found = [
        [
            np.ravel_multi_index((*np.nonzero(plane), np.full(plane.sum(), at)), stack.shape)
            for at, plane in ((at, pair[which]) for at, pair in planes.items())
        ]
        for which in (0, 1)
    ]
    within_all, around_all = (np.sort(np.concatenate(parts)) for parts in found)
    return within_all, around_all


def _fill(outline: Outline, within: NDArray[Any], around: NDArray[Any]) -> None:
    area, drawn = np.zeros_like(within), np.zeros_like(within)
    area[polygon(np.array(outline.columns), np.array(outline.rows), within.shape)] = True
    corners = list(zip(outline.columns, outline.rows, strict=True))
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        columns, rows = line(*start, *end)
        there = (
            (columns < within.shape[0]) & (rows < within.shape[1]) & (columns >= 0) & (rows >= 0)
        )
        drawn[columns[there], rows[there]] = True
    if outline.inclusion:
        within |= area & ~drawn
        around |= area | drawn
    else:
        within &= ~(area & ~drawn)


def _slice_at(stack: Stack, z_mm: float) -> int:
    """The index of the slice at a position.

    Raises:
        ValueError: if there is none.
    """
    positions = np.array([piece.position_lps_mm[2] for piece in stack.slices])
    at = int(np.abs(positions - z_mm).argmin())
    if abs(positions[at] - z_mm) > _SLICE_MM:
        raise ValueError(f"a mark lies at z = {z_mm:g} mm, where the series has no slice")
    return at
