"""Projection radiographs from DICOM, PNG and JPEG files, as a reader sees them.

The DICOM grey-scale pipeline is PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT or window), then
MONOCHROME1 inverted, so that bright is dense in every image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.pixels.processing import apply_rescale, apply_windowing

from storage.images import dicom
from storage.images.decoding import decoding
from storage.images.types import ImageDescription, ImageError, Radiograph
from storage.images.vocabulary import NOT_STATED, is_radiograph, view_position

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
_CHANNEL_TOLERANCE = 8  # of 255: JPEG's rounding sets the channels of a grey image apart
_PERCENTILES = (0.5, 99.5)  # collimator edges and markers lie outside


def read(path: Path) -> Radiograph:
    """Load a radiograph."""
    return _read_dicom(path) if _format(path) == "DICOM" else _read_raster(path)


def describe(path: Path) -> ImageDescription:
    """Describe a radiograph from its header."""
    kind = _format(path)
    with decoding(path, kind):
        if kind == "DICOM":
            return _describe_dicom(path, dicom.read_header(path))
        with Image.open(path) as image:
            return ImageDescription(NOT_STATED, None, (image.height, image.width), None)


def _format(path: Path) -> str:
    if dicom.is_dicom(path):
        return "DICOM"
    with decoding(path, "a radiograph"), path.open("rb") as stream:
        start = stream.read(8)
    for signature, name in _SIGNATURES.items():
        if start.startswith(signature):
            return name
    raise ImageError(
        "image_unreadable", f"{path} is no DICOM, PNG or JPEG file, or it is cut short"
    )


def _read_dicom(path: Path) -> Radiograph:
    with decoding(path, "DICOM"):
        dataset = dicom.read_whole(path)
        said = _describe_dicom(path, dataset)
        pixels = _presented(dicom.stored_pixels(path, dataset), dataset)
        return Radiograph(pixels, _spacing_yx_mm(dataset), said.view, said.modality)


def _describe_dicom(path: Path, dataset: Dataset) -> ImageDescription:
    modality = str(dataset.get("Modality") or NOT_STATED).upper()
    if not is_radiograph(modality):
        raise ImageError(
            "image_unsupported",
            f"{path} has the modality {modality}, which is no radiograph's (CR, DX, RG); "
            "a CT is given as the folder of its series",
        )
    dicom.check_single_grey_frame(path, dataset)
    return ImageDescription(
        modality=modality,
        view=view_position(str(dataset.get("ViewPosition") or "")),
        shape=(int(dataset.Rows), int(dataset.Columns)),
        spacing_mm=_spacing_yx_mm(dataset),
    )


def _spacing_yx_mm(dataset: Dataset) -> tuple[float, float] | None:
    """In the patient where calibrated, else on the detector."""
    return dicom.positive_pair(dataset, "PixelSpacing") or dicom.positive_pair(
        dataset, "ImagerPixelSpacing"
    )


def _presented(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.float32]:
    values = _of_modality(stored, dataset)
    if tables := dataset.get("VOILUTSequence"):
        grey = _looked_up(values, tables[0]) / (2 ** int(tables[0].LUTDescriptor[2]) - 1)
    elif window := _window(dataset):
        grey = apply_windowing(values, window)
    else:
        grey = _stretched(values)
    pixels: NDArray[np.float32] = np.clip(grey, 0, 1).astype(np.float32)
    return 1 - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def _of_modality(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.number]:
    if tables := dataset.get("ModalityLUTSequence"):
        return _looked_up(stored, tables[0])
    return apply_rescale(stored, dataset) if dicom.has_rescale(dataset) else stored


def _looked_up(values: NDArray[np.number], table: Dataset) -> NDArray[np.integer]:
    """Entries of a lookup table; values before its first and after its last take those.

    Not pydicom's own: its apply_voi wraps the index at 256 when the entries have 8 bits.
    """
    count, first, _ = (int(number) for number in table.LUTDescriptor)
    data = table.LUTData
    entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    index = np.clip(np.rint(values) - first, 0, (count or 2**16) - 1).astype(np.intp)
    found: NDArray[np.integer] = entries[index]
    return found


def _window(dataset: Dataset) -> Dataset | None:
    """The first window of a file, set up so that pydicom maps it to 0 to 1; None if unusable."""
    center, width = (_first_number(dataset, word) for word in ("WindowCenter", "WindowWidth"))
    if center is None or width is None or width <= 1:
        return None
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.PixelRepresentation, window.BitsStored = 0, 1  # one bit: the output range is 0 to 1
    window.WindowCenter, window.WindowWidth = center, width
    window.VOILUTFunction = dataset.get("VOILUTFunction") or "LINEAR"
    return window


def _first_number(dataset: Dataset, keyword: str) -> float | None:
    if not dataset.get(keyword) and dataset.get(keyword) != 0:
        return None
    value = dataset[keyword].value
    return float(value[0] if dataset[keyword].VM > 1 else value)


def _stretched(values: NDArray[np.number]) -> NDArray[np.float64]:
    low, high = np.percentile(values, _PERCENTILES)
    stretched: NDArray[np.float64] = (values - low) / max(high - low, 1e-9)
    return stretched


def _read_raster(path: Path) -> Radiograph:
    with decoding(path, "an image"), Image.open(path) as image:
        if image.mode.startswith("I"):
            pixels = np.clip(_stretched(np.asarray(image)), 0, 1)
        elif image.mode in ("1", "L", "LA"):
            pixels = np.asarray(image.convert("L")) / 255
        else:
            pixels = _grey(path, np.asarray(image.convert("RGB")))
    return Radiograph(pixels.astype(np.float32), None, None, NOT_STATED)


def _grey(path: Path, rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    if np.ptp(rgb.astype(np.int16), axis=2).max(initial=0) > _CHANNEL_TOLERANCE:
        raise ImageError("image_unsupported", f"{path} is a colour image: a grey one is needed")
    mean: NDArray[np.float64] = rgb.mean(axis=2)
    return mean / 255
