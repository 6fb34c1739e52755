"""Projection radiographs from DICOM, PNG and JPEG files, as a reader sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.pixels.processing import apply_color_lut

from storage.images import dicom, rasters
from storage.images.decoding import decoding
from storage.images.grayscale import presented
from storage.images.limits import check_film_bytes, check_pixels
from storage.images.types import ImageDescription, ImageError, Radiograph
from storage.images.vocabulary import NOT_STATED, is_radiograph, view_position

_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_SPACING_MM = (0.01, 10.0)  # film digitizers go down to 0.02, thumbnails up to some 5


def read(path: Path) -> Radiograph:
    """Load a radiograph."""
    kind = _format(path)
    with decoding(path, kind):
        check_film_bytes(path, path.stat().st_size)
        if kind == "DICOM":
            return _read_dicom(path)
        return Radiograph(rasters.read_grey(path), None, None, NOT_STATED)


def describe(path: Path) -> ImageDescription:
    """Describe a radiograph from its header."""
    kind = _format(path)
    with decoding(path, kind):
        check_film_bytes(path, path.stat().st_size)
        if kind == "DICOM":
            return _describe_dicom(path, dicom.read_header(path))
        return ImageDescription(NOT_STATED, None, rasters.read_shape(path), None)


def check_grey(path: Path) -> None:
    """Refuse colour; pixels are decoded only where the header leaves it open."""
    kind = _format(path)
    with decoding(path, kind):
        if kind != "DICOM":
            rasters.check_grey(path)
        elif dicom.photometric_interpretation(dicom.read_header(path)) not in _GREY:
            _read_dicom(path)


def _format(path: Path) -> str:
    if dicom.is_dicom(path):
        return "DICOM"
    with decoding(path, "a radiograph"), path.open("rb") as stream:
        start = stream.read(max(map(len, rasters.SIGNATURES)))
    for signature, name in rasters.SIGNATURES.items():
        if start.startswith(signature):
            return name
    raise ImageError(
        "image_unreadable", f"{path} is no DICOM, PNG or JPEG file, or it is cut short"
    )


def _read_dicom(path: Path) -> Radiograph:
    dataset = dicom.read_whole(path)
    said = _describe_dicom(path, dataset)
    stored = dicom.stored_pixels(path, dataset)
    if dicom.photometric_interpretation(dataset) in _GREY:
        pixels = presented(stored, dataset)
    else:
        pixels = _grey_of_colour(path, stored, dataset)
    return Radiograph(pixels, _spacing_yx_mm(dataset), said.view, said.modality)


def _describe_dicom(path: Path, dataset: Dataset) -> ImageDescription:
    modality = dicom.text(dataset, "Modality").upper() or NOT_STATED
    if not is_radiograph(modality):
        raise ImageError(
            "image_unsupported",
            f"{path} has the modality {modality}, which is no radiograph's (CR, DX, RG); "
            "a CT is given as the folder of its series",
        )
    dicom.check_single_frame(path, dataset)
    rows, columns = (int(dicom.numbers(dataset, word)[0]) for word in ("Rows", "Columns"))
    check_pixels(path, rows, columns)
    return ImageDescription(
        modality=modality,
        view=view_position(dicom.text(dataset, "ViewPosition")),
        shape=(rows, columns),
        spacing_mm=_spacing_yx_mm(dataset),
    )


def _spacing_yx_mm(dataset: Dataset) -> tuple[float, float] | None:
    """In the patient where calibrated, else on the detector; None where neither can be true."""
    low, high = _SPACING_MM
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        pair = dicom.positive_pair(dataset, keyword)
        if pair and low <= min(pair) and max(pair) <= high:
            return pair
    return None


def _grey_of_colour(
    path: Path, stored: NDArray[np.integer], dataset: FileDataset
) -> NDArray[np.float32]:
    """Grey from 0 to 1 of a screen capture in colours that are all grey."""
    if dicom.photometric_interpretation(dataset) == _PALETTE:
        rgb = apply_color_lut(stored, dataset)
        bits = rgb.dtype.itemsize * 8
    else:
        rgb = stored
        bits = int(next(iter(dicom.numbers(dataset, "BitsStored")), stored.dtype.itemsize * 8))
    if rgb.ndim != 3 or rgb.dtype.kind != "u":
        raise ImageError("image_unreadable", f"{path} has no three channels of colour")
    grey = rasters.mean_of_channels(path, rgb)
    grey /= (1 << bits) - 1
    return np.clip(grey, 0, 1, out=grey)
