"""Single DICOM files: headers, and stored pixels of the transfer syntaxes that can be decoded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from storage.images.decoding import decoding
from storage.images.types import ImageError

_MARK_OFFSET, _MARK = 128, b"DICM"
_GREY = ("MONOCHROME1", "MONOCHROME2")


def is_dicom(path: Path) -> bool:
    """Whether the file carries DICOM's mark (PS3.10, 7.1)."""
    with decoding(path, "an image"), path.open("rb") as stream:
        stream.seek(_MARK_OFFSET)
        return stream.read(len(_MARK)) == _MARK


def read_header(path: Path) -> FileDataset:
    """Read everything up to the pixels."""
    return dcmread(path, stop_before_pixels=True)


def read_whole(path: Path) -> FileDataset:
    """Read a file whose pixels are wanted.

    Raises:
        ImageError: `image_unreadable`, if there are none.
    """
    dataset = dcmread(path)
    if "PixelData" not in dataset:
        raise ImageError("image_unreadable", f"{path} has no pixel data: the file may be cut short")
    return dataset


def stored_pixels(path: Path, dataset: FileDataset) -> NDArray[np.integer]:
    """Decode the pixels as stored, (rows, columns), before any rescale or window.

    Raises:
        ImageError: `image_unsupported`, if no decoder for their transfer syntax is installed.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        _check_decoder(path, syntax)
    pixels: NDArray[np.integer] = dataset.pixel_array
    return pixels


def check_single_grey_frame(path: Path, dataset: Dataset) -> None:
    """Refuse colour and several frames.

    Raises:
        ImageError: `image_unsupported`; `image_unreadable` if the header ends before it says.
    """
    photometric = dataset.get("PhotometricInterpretation")
    if not photometric or "Rows" not in dataset or "Columns" not in dataset:
        raise ImageError(
            "image_unreadable", f"{path} does not describe its pixels: it may be cut short"
        )
    if dataset.get("SamplesPerPixel", 1) != 1 or photometric not in _GREY:
        raise ImageError(
            "image_unsupported", f"{path} is a colour image ({photometric}): a grey one is needed"
        )
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ImageError(
            "image_unsupported", f"{path} has {frames} frames: single images are needed"
        )


def has_rescale(dataset: Dataset) -> bool:
    """Whether slope and intercept of the modality are both given; anonymizers may empty them."""
    return None not in (dataset.get("RescaleSlope"), dataset.get("RescaleIntercept"))


def positive_pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Two finite positive numbers of an element; None if it does not hold that."""
    values = dataset.get(keyword)
    if values is None or isinstance(values, str) or len(values) != 2:
        return None
    first, second = (float(value) for value in values)
    usable = all(math.isfinite(value) and value > 0 for value in (first, second))
    return (first, second) if usable else None


def _check_decoder(path: Path, syntax: UID) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ImageError(
            "image_unsupported", f"{path} is compressed as {syntax.name}, which is not supported"
        ) from error
    if decoder.is_available:
        return
    # "pylibjpeg - requires pylibjpeg>=2.0 and pylibjpeg-libjpeg>=2.1"
    needs = next(
        line.partition(" requires ")[2]
        for line in decoder.missing_dependencies
        if line.startswith("pylibjpeg")
    )
    packages = " ".join(f"'{package}'" for package in needs.split(" and "))
    raise ImageError(
        "image_unsupported",
        f"{path} is compressed as {syntax.name}: to read it, pip install {packages}",
    )
