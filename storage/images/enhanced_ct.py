"""The slices of an enhanced CT: one DICOM file with many frames (PS3.3 A.38).

What differs between frames is in their functional groups, what they share in the shared ones
(C.7.6.16); each group is a sequence of one item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from storage.images import dicom
from storage.images.decoding import decoding
from storage.images.dicom_slices import Slice, slice_of
from storage.images.limits import check_voxels
from storage.images.types import ImageError

ENHANCED_CT = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)

_OF_THE_SERIES = ("SeriesInstanceUID", "Rows", "Columns", "SamplesPerPixel")
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "CTImageFrameTypeSequence": ("FrameType",),
}
_NO_SLICES = ("LOCALIZER", "PERFUSION")
"""Third values of FrameType: a scout, and the maps of blood flow, which are not in HU."""


def is_enhanced_ct(path: Path) -> bool:
    """Whether a DICOM file is an enhanced CT, by the SOP class that it names."""
    with decoding(path, "DICOM"):
        return dicom.sop_class(path) in ENHANCED_CT


def frames_of(path: Path, header: Dataset) -> list[Slice]:
    """The slices of an enhanced CT, in the order of the file.

    Raises:
        ImageError: `image_unsupported` of a part of a concatenation and of what shows no anatomy;
            `image_unreadable`, if frames are not described; `too_large`; as `slice_of`.
    """
    if header.get("ConcatenationUID") and header.get("InConcatenationTotalNumber") != 1:
        raise ImageError(
            "image_unsupported",
            f"{path} is one part of an enhanced CT that is split into several files "
            "(a concatenation): join them first",
        )
    count = int(header.get("NumberOfFrames") or 1)
    check_voxels(path, (int(header.Columns), int(header.Rows), count))
    described = header.get("PerFrameFunctionalGroupsSequence") or []
    if len(described) != count:
        raise ImageError(
            "image_unreadable",
            f"{path} has {count} frames and describes {len(described)}: it may be damaged",
        )
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return [
        slice_of(path, _flat(path, header, shared, groups), frame)
        for frame, groups in enumerate(described)
    ]


def pixels_of(path: Path, count: int) -> Iterator[NDArray[np.integer]]:
    """The stored pixels (rows, columns) of each frame; one at a time is in memory.

    Raises:
        ImageError: `image_unsupported`, if there is no decoder for its transfer syntax;
            `image_unreadable`, if the file has fewer frames than it says.
    """
    syntax = read_file_meta_info(path).TransferSyntaxUID
    if syntax.is_encapsulated and not _can_decode(syntax):
        raise ImageError(
            "image_unsupported",
            f"{path} is compressed as {syntax.name}, for which no decoder is installed",
        )
    found = 0
    for pixels in iter_pixels(path):
        found += 1
        yield pixels
    if found < count:
        raise ImageError("image_unreadable", f"{path} is cut short: {found} of {count} frames")


def _can_decode(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _flat(path: Path, header: Dataset, shared: Dataset, groups: Dataset) -> Dataset:
    """The elements of one frame as a single image has them."""
    flat = Dataset()
    flat.PhotometricInterpretation = header.get("PhotometricInterpretation")
    for keyword in _OF_THE_SERIES:
        if keyword in header:
            flat[keyword] = header[keyword]
    for group, keywords in _GROUPS.items():
        items = groups.get(group) or shared.get(group)
        for keyword in keywords:
            if items and keyword in items[0]:
                flat[keyword] = items[0][keyword]
    kind = list(flat.get("FrameType") or [])
    if len(kind) > 2 and kind[2] in _NO_SLICES:
        raise ImageError(
            "image_unsupported", f"{path} has frames of the type {kind[2]}: slices in HU are needed"
        )
    return flat
