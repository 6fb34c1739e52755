"""Single DICOM files: their elements, of which any may be odd, and their stored pixels."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from struct import unpack_from
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, dcmread
from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.filereader import (
    read_dataset,
    read_file_meta_info,
    read_partial,
    read_preamble,
)
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from storage.images.codecs import StreamSize, decode
from storage.images.decoding import decoding
from storage.images.limits import check_film_bytes
from storage.images.types import ImageError

_MARK_OFFSET, _MARK = 128, b"DICM"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_META_GROUP = 0x0002
_SOP_CLASS = 0x00080016
_FIRST_GROUPS = (_META_GROUP, 0x0008)  # what a data set without a preamble begins with
_MAX_FIRST_LENGTH = 1024  # bytes; the first elements are sizes, versions, names of character sets
_VRS = {vr.value.encode() for vr in VR if len(vr.value) == 2}
_LONG_VRS = {vr.encode() for vr in EXPLICIT_VR_LENGTH_32}
_INFLATED_AT_A_TIME = 1 << 20  # bytes
_BITS_ALLOCATED = (8, 16, 32)


def is_dicom(path: Path) -> bool:
    """Whether the file carries DICOM's mark (PS3.10, 7.1), or begins with an element of a data set.

    Archives of the 1990s, and some exports, leave out the 128 bytes before the mark, and the mark.
    """
    with decoding(path, "an image"), path.open("rb") as stream:
        start = stream.read(_MARK_OFFSET + len(_MARK))
    return start[_MARK_OFFSET:] == _MARK or _is_element(start)


def sop_class(path: Path) -> str:
    """The SOP class that the file names in its meta information, or without one in the data set."""
    with path.open("rb") as stream:
        is_bare = _is_element(stream.read(_MARK_OFFSET))
        stream.seek(0)
        if not is_bare:  # the rest may be deflated, and pydicom would inflate it whole
            return str(read_file_meta_info(path).get("MediaStorageSOPClassUID") or "")
        start = read_partial(stream, lambda tag, *_: bool(tag > _SOP_CLASS), force=True)
        return str(start.get("SOPClassUID") or "")


def read_header(path: Path) -> FileDataset:
    """Read everything up to the pixels.

    Raises:
        ImageError: `too_large`, if the file is deflated and inflates to more than a radiograph has.
    """
    return _read(path, stop_before_pixels=True)


def read_whole(path: Path) -> FileDataset:
    """Read a file whose pixels are wanted.

    Raises:
        ImageError: `image_unreadable`, if there are none; `too_large`, as `read_header`.
    """
    dataset = _read(path, stop_before_pixels=False)
    if "PixelData" not in dataset:
        raise ImageError("image_unreadable", f"{path} has no pixel data: the file may be cut short")
    return dataset


def stored_pixels(path: Path, dataset: FileDataset) -> NDArray[np.integer]:
    """Decode the pixels of a single frame as stored, before any rescale or window.

    Returns:
        (rows, columns), or (rows, columns, 3) in red, green and blue.

    Raises:
        ImageError: `image_unsupported`, if there is no decoder for their transfer syntax;
            `image_unreadable`, if they are not as many as the header says.
    """
    syntax = _transfer_syntax(path, dataset)
    options = _pixel_options(path, dataset)
    data = dataset.PixelData
    if syntax.is_encapsulated:
        samples = options["samples_per_pixel"]
        size = StreamSize(options["rows"], options["columns"], samples)
        frame = next(generate_frames(data, number_of_frames=1))
        pixels = decode(path, syntax, frame, size, options)
        return _used_bits(dataset, pixels) if syntax == RLELossless else pixels
    _check_length(path, len(data), options)
    options |= {"pixel_vr": dataset["PixelData"].VR, "correct_unused_bits": False}
    pixels, _ = get_decoder(syntax).as_array(data, **options)
    return _used_bits(dataset, pixels)


def check_single_grey_frame(path: Path, dataset: Dataset) -> None:
    """Refuse colour and several frames.

    Raises:
        ImageError: `image_unsupported`; `image_unreadable` if the header ends before it says.
    """
    check_single_frame(path, dataset)
    photometric = photometric_interpretation(dataset)
    if dataset.get("SamplesPerPixel", 1) != 1 or photometric not in _GREY:
        raise ImageError(
            "image_unsupported", f"{path} is a colour image ({photometric}): a grey one is needed"
        )


def check_single_frame(path: Path, dataset: Dataset) -> None:
    """Refuse several frames.

    Raises:
        ImageError: `image_unsupported`; `image_unreadable` if the header ends before it says.
    """
    if (
        not photometric_interpretation(dataset)
        or not numbers(dataset, "Rows")
        or not numbers(dataset, "Columns")
    ):
        raise ImageError(
            "image_unreadable", f"{path} does not describe its pixels: it may be cut short"
        )
    frames = numbers(dataset, "NumberOfFrames")
    if frames and frames[0] > 1:
        raise ImageError(
            "image_unsupported", f"{path} has {frames[0]:.0f} frames: single images are needed"
        )


def photometric_interpretation(dataset: Dataset) -> str:
    """What the values of the pixels mean (PS3.3, C.7.6.3.1.2); empty if it is not said."""
    return text(dataset, "PhotometricInterpretation").upper()


def text(dataset: Dataset, keyword: str) -> str:
    """The first value of an element as text; empty if it has none that can be read."""
    value = next(_values(dataset, keyword), None)
    return "" if value is None else str(value).strip()


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """The values of an element as finite numbers; none at all if any is something else."""
    try:
        found = tuple(float(value) for value in _values(dataset, keyword))
    except (TypeError, ValueError):
        return ()
    return found if all(map(math.isfinite, found)) else ()


def has_rescale(dataset: Dataset) -> bool:
    """Whether slope and intercept of the modality are both given; anonymizers may empty them."""
    return bool(numbers(dataset, "RescaleSlope") and numbers(dataset, "RescaleIntercept"))


def positive_pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Two finite positive numbers of an element; None if it does not hold that."""
    values = numbers(dataset, keyword)
    if len(values) != 2 or min(values) <= 0:
        return None
    first, second = values
    return first, second


def _values(dataset: Dataset, keyword: str) -> Iterator[Any]:
    """The values of an element; none if it is absent, empty, or its text is not of its type."""
    try:
        value = dataset.get(keyword)
    # pydicom parses an element when it is asked for: ValueError, TypeError, OverflowError,
    # struct.error, NotImplementedError, … of elements that say little about the picture.
    except Exception:  # noqa: BLE001
        return
    if isinstance(value, MultiValue | list | tuple):
        yield from value
    elif value is not None and value != "":
        yield value


def _is_element(start: bytes) -> bool:
    """Whether a file's first bytes are an element that a little-endian data set begins with."""
    if len(start) < 12:
        return False
    group, element, length = unpack_from("<HHI", start)
    if group not in _FIRST_GROUPS or not (element == 0 or dictionary_has_tag((group, element))):
        return False
    if (vr := start[4:6]) in _VRS:
        (length,) = unpack_from("<I", start, 8) if vr in _LONG_VRS else unpack_from("<H", start, 6)
    return bool(length <= _MAX_FIRST_LENGTH)


def _read(path: Path, *, stop_before_pixels: bool) -> FileDataset:
    with path.open("rb") as stream:
        is_bare = _is_element(stream.read(_MARK_OFFSET))
        stream.seek(0)
        preamble = read_preamble(stream, force=is_bare)
        meta = read_dataset(
            stream,
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, *_: bool(tag.group != _META_GROUP),
        )
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            stream.seek(0)
            return dcmread(stream, stop_before_pixels=stop_before_pixels, force=is_bare)
        inflated = _inflated(path, stream)
    dataset = read_dataset(BytesIO(inflated), is_implicit_VR=False, is_little_endian=True)
    return FileDataset(
        path,
        dataset,
        preamble,
        FileMetaDataset(meta),
        is_implicit_VR=False,
        is_little_endian=True,
    )


def _inflated(path: Path, stream: BinaryIO) -> bytes:
    """The rest of a file that is deflated (PS3.5, A.5).

    Raises:
        ImageError: `too_large`, without having held more than the limit; `image_unreadable`, if it
            is cut short.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    pieces: list[bytes] = []
    count = 0
    data = stream.read(_INFLATED_AT_A_TIME)
    while data and not inflater.eof:
        pieces.append(inflater.decompress(data, _INFLATED_AT_A_TIME))
        count += len(pieces[-1])
        check_film_bytes(path, count)
        data = inflater.unconsumed_tail or stream.read(_INFLATED_AT_A_TIME)
    if not inflater.eof:
        raise ImageError("image_unreadable", f"{path} is cut short: its deflated data has no end")
    return b"".join(pieces)


def _transfer_syntax(path: Path, dataset: FileDataset) -> UID:
    """As the file says; else as its elements turned out to be encoded (PS3.5, 10.1)."""
    if stated := dataset.file_meta.get("TransferSyntaxUID"):
        return UID(str(stated))
    if dataset["PixelData"].is_undefined_length:
        raise ImageError(
            "image_unsupported",
            f"{path} does not say how its pixels are compressed: it has no TransferSyntaxUID",
        )
    is_implicit, is_little_endian = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian


def _pixel_options(path: Path, dataset: Dataset) -> dict[str, Any]:
    """What pydicom's decoders are told of the pixels; the file's other elements do not count."""

    def whole(keyword: str, otherwise: int) -> int:
        return int(next(iter(numbers(dataset, keyword)), otherwise))

    allocated = whole("BitsAllocated", 16)
    if allocated not in _BITS_ALLOCATED:
        raise ImageError(
            "image_unsupported", f"{path} has pixels of {allocated} bits, which are not supported"
        )
    return {
        "pixel_keyword": "PixelData",
        "rows": whole("Rows", 0),
        "columns": whole("Columns", 0),
        "number_of_frames": 1,
        "samples_per_pixel": whole("SamplesPerPixel", 1),
        "bits_allocated": allocated,
        "bits_stored": whole("BitsStored", allocated),
        "photometric_interpretation": photometric_interpretation(dataset),
        "pixel_representation": whole("PixelRepresentation", 0),
        "planar_configuration": whole("PlanarConfiguration", 0),
    }


def _check_length(path: Path, count: int, options: dict[str, Any]) -> None:
    """Refuse uncompressed pixels of another number than the header gives.

    Less than a row over is padding; more of it shears the picture, or is another picture.
    """
    per_pixel = options["samples_per_pixel"] * options["bits_allocated"] // 8
    if options["photometric_interpretation"] == "YBR_FULL_422":
        per_pixel = per_pixel * 2 // 3
    row = options["columns"] * per_pixel
    expected = options["rows"] * row
    if not expected <= count < expected + max(row, 2):
        raise ImageError(
            "image_unreadable",
            f"{path} has {count:,} bytes of pixels, its header says {expected:,}: it is damaged or "
            "cut short",
        )


def _used_bits(dataset: Dataset, pixels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Drop what lies above HighBit (overlays, in old files) and below the stored bits."""
    allocated = pixels.dtype.itemsize * 8
    stored = int(next(iter(numbers(dataset, "BitsStored")), allocated))
    high = int(next(iter(numbers(dataset, "HighBit")), stored - 1))
    if not stored - 1 <= high < allocated:
        high = stored - 1
    if stored == allocated:
        return pixels
    # Shifting to the right keeps the sign, if the type has one.
    return cast("NDArray[np.integer]", (pixels << (allocated - 1 - high)) >> (allocated - stored))
