"""Which files of a folder are the slices of its CT series, and what is left out.

Archives and exports put other objects beside the slices: localizers (scouts), dose reports,
presentation states, structures and segmentations, secondary captures, the same slice twice. They
are no part of the volume; each is left out and named.

Whether the slices that are there are all, only the headers can tell, and few do:

- `NumberOfSeriesRelatedInstances` counts the objects of the series, where an archive wrote it.
- `ImagesInAcquisition` counts the images of an acquisition. It says that some are missing if there
  are fewer and their `InstanceNumber`s lie no further apart than that many. If they do, it counts
  something else, such as the images of one of several reconstructions.
- `InstanceNumber` alone says nothing of the ends: it starts anywhere (the series of part of a body
  may run from 267 to 286). A gap between slices it explains: see `dicom_series`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage

from storage.images import dicom
from storage.images.decoding import decoding
from storage.images.dicom_slices import Slice, slice_of, whole_number
from storage.images.enhanced_ct import ENHANCED_CT, frames_of
from storage.images.placeholders import refuse_placeholder
from storage.images.types import ImageError

_CT = (CTImageStorage, *ENHANCED_CT)
_LONE = 3
"""Images across the stack that are still taken for localizers that do not say so."""
_ACROSS = 0.1
"""Cosine between the normals of two such images; localizers lie at a right angle."""
_SAME_PLACE_MM = 1e-3


def members(source: Path, modality: str = "CT") -> tuple[list[Slice], tuple[str, ...]]:
    """The slices of a folder, or of one file, in any order, and a sentence on what is left out.

    Args:
        source: The folder or file.
        modality: Of the series; the other objects of the folder are left out.

    Raises:
        ImageError: if a file is damaged, there is no slice, or slices are said to be missing.
    """
    headers = _headers(source)
    slices: list[Slice] = []
    with decoding(source, "DICOM"):
        left_out = _not_slices(headers, modality)
    if len(left_out) == len(headers):
        raise ImageError(
            "image_unsupported", f"{source} holds no {modality} slice: {left_out[min(left_out)]}"
        )
    for path, header in headers.items():
        if path not in left_out:
            with decoding(path, "DICOM"):
                slices += _slices_of(path, header, modality)
    _leave_out_across(slices, left_out)
    _leave_out_duplicates(slices, left_out)
    with decoding(source, "DICOM"):
        _check_complete(source, headers, slices)
    return slices, tuple(left_out[path] for path in sorted(left_out))


def _headers(source: Path) -> dict[Path, Dataset]:
    if source.is_file():
        paths = [source]
    else:
        with decoding(source, "a folder of DICOM files"):
            paths = [path for path in sorted(source.iterdir()) if _may_be_dicom(path)]
    if not paths:
        raise ImageError("image_unreadable", f"{source} holds no DICOM file")
    headers: dict[Path, Dataset] = {}
    for path in paths:
        refuse_placeholder(path)
        with decoding(path, "DICOM"):
            headers[path] = dicom.read_header(path)
    return headers


def _may_be_dicom(path: Path) -> bool:
    """Leaves out what archives put beside images: folders, hidden files, indices, notes."""
    if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    # An empty or cut file must not pass as a note: a slice would be missing unseen.
    return path.suffix.lower() == ".dcm" or path.stat().st_size == 0 or dicom.is_dicom(path)


def _not_slices(headers: dict[Path, Dataset], wanted: str) -> dict[Path, str]:
    """What says of itself that it is no slice of the modality, each with a sentence."""
    found = {}
    captures = {}
    for path, header in headers.items():
        kind = _sop_class(header)
        modality = str(header.get("Modality") or ("CT" if kind in _CT else "not stated")).upper()
        if "LOCALIZER" in list(header.get("ImageType") or []):
            found[path] = f"{path.name} is a localizer"
        elif modality != wanted:
            found[path] = f"{path.name} has the modality {modality}, not {wanted}"
        elif wanted != "CT":
            continue
        elif kind and kind not in _CT and "Rows" not in header:
            found[path] = f"{path.name} holds no image ({kind.name})"
        elif kind and kind not in _CT:
            captures[path] = f"{path.name} is no CT image ({kind.name})"
    # Converters store whole CTs as secondary captures: left out only beside true ones.
    return found | captures if len(found) + len(captures) < len(headers) else found


def _sop_class(header: Dataset) -> UID:
    meta = getattr(header, "file_meta", Dataset())
    return UID(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")


def _slices_of(path: Path, header: Dataset, modality: str) -> list[Slice]:
    if _sop_class(header) in ENHANCED_CT:
        return frames_of(path, header)
    return [slice_of(path, header, modality=modality)]


def _leave_out_across(slices: list[Slice], left_out: dict[Path, str]) -> None:
    """A few images at a right angle to all others are localizers whose ImageType was removed."""
    groups: dict[bool, list[Slice]] = {True: [], False: []}
    for piece in slices:
        groups[bool(abs(piece.normal @ slices[0].normal) < _ACROSS)].append(piece)
    fewer, more = sorted(groups.values(), key=len)
    if len(fewer) <= _LONE < len(more):
        for piece in fewer:
            slices.remove(piece)
            left_out[piece.path] = f"{piece.path.name} lies across the slices, as a localizer does"


def _leave_out_duplicates(slices: list[Slice], left_out: dict[Path, str]) -> None:
    """A file with the pixels, rescale and place of another is that slice once more."""
    kept: dict[tuple[int, ...], list[Slice]] = defaultdict(list)
    pixels = cache(_pixel_digest)
    for piece in list(slices):
        place = tuple(np.rint(piece.position_lps_mm / _SAME_PLACE_MM).astype(np.int64).tolist())
        twins = (
            other
            for other in kept[place]
            if (piece.slope, piece.intercept, piece.frame)
            == (other.slope, other.intercept, other.frame)
            and pixels(piece.path) == pixels(other.path)
        )
        if (twin := next(twins, None)) is None:
            kept[place].append(piece)
        else:
            slices.remove(piece)
            left_out[piece.path] = f"{piece.path.name} is the same image as {twin.path.name}"


def _pixel_digest(path: Path) -> bytes:
    with decoding(path, "DICOM"):
        return hashlib.sha256(dicom.read_whole(path).PixelData).digest()


def _check_complete(source: Path, headers: dict[Path, Dataset], slices: Sequence[Slice]) -> None:
    """Hold the slices against the counts in their headers.

    Raises:
        ImageError: `series_incomplete`.
    """
    objects: dict[str, set[str]] = defaultdict(set)
    for path, header in headers.items():
        series = str(header.get("SeriesInstanceUID") or "")
        objects[series].add(str(header.get("SOPInstanceUID") or path))
    for piece in slices:
        in_series = whole_number(headers[piece.path], "NumberOfSeriesRelatedInstances") or 0
        if len(objects[piece.series]) < in_series:
            raise _incomplete(source, len(objects[piece.series]), in_series, "series")
    acquisitions: dict[int | None, list[Slice]] = defaultdict(list)
    for piece in slices:
        acquisitions[piece.acquisition].append(piece)
    for images in acquisitions.values():
        stated = {piece.images_in_acquisition for piece in images}
        numbers = [piece.instance for piece in images if piece.instance is not None]
        if len(stated) > 1 or None in stated or len(numbers) < len(images):
            continue
        total = int(stated.pop() or 0)
        if len(images) < total and max(numbers) - min(numbers) < total:
            raise _incomplete(source, len(images), total, "acquisition")


def _incomplete(source: Path, there: int, stated: int, whole: str) -> ImageError:
    return ImageError(
        "series_incomplete",
        f"{source} holds {there} of the {stated} images that its headers count in the {whole}: "
        "copy the missing ones too",
    )
