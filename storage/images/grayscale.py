"""DICOM's grey-scale pipeline: stored values to what a reader sees (PS3.3, C.11).

The modality's lookup table or rescale, then the first lookup table or window of interest (VOI) that
shows the picture, else a stretch. MONOCHROME1 is inverted, so that bright is dense in every image;
padding is black. One odd element does not cost the image: the next one takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from storage.images.dicom import numbers, photometric_interpretation, text

_PERCENTILES = (0.5, 99.5)  # collimator edges and markers lie outside
_AT_AN_END = 0.01  # of the range of grey: a sigmoid never reaches its ends
_NEARLY_ALL = 0.95  # of the pixels; the air and the collimator of a real film take up to 0.9
_SIXTEEN_BITS = 1 << 16


def presented(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.float32]:
    """Grey from 0 to 1, bright is dense, of stored pixels."""
    padding = _padding(stored, dataset)
    values = _of_modality(stored, dataset)
    shown = values if padding is None else values[~padding]
    grey = next(_of_interest(values, shown, dataset), None)
    if grey is None:
        grey = stretched(values, shown)
    if photometric_interpretation(dataset) == "MONOCHROME1":
        np.subtract(1, grey, out=grey)
    if padding is not None:
        grey[padding] = 0
    return grey


def stretched(
    values: NDArray[np.number], shown: NDArray[np.number] | None = None
) -> NDArray[np.float32]:
    """Grey from 0 to 1 between percentiles of the values, or of those that are `shown`."""
    low, high = np.percentile(values if shown is None else shown, _PERCENTILES)
    grey = values.astype(np.float32)
    grey -= low
    grey /= max(high - low, 1e-9)
    return np.clip(grey, 0, 1, out=grey)


def _padding(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.bool_] | None:
    """The pixels that are no part of the picture (PS3.3, C.7.5.1.1.2); None if there are none.

    A range that covers nearly all of the picture is not believed.
    """
    value = numbers(dataset, "PixelPaddingValue")
    if not value:
        return None
    limit = numbers(dataset, "PixelPaddingRangeLimit") or value
    ends = sorted(_in_type(stored, dataset, number) for number in (value[0], limit[0]))
    padding: NDArray[np.bool_] = (stored >= ends[0]) & (stored <= ends[1])
    share = padding.mean()
    return padding if 0 < share < _NEARLY_ALL else None


def _in_type(stored: NDArray[np.integer], dataset: Dataset, number: float) -> int:
    """A value as pixels hold it: writers take US for SS, and give more bits than are stored."""
    allocated = stored.dtype.itemsize * 8
    bits = int(next(iter(numbers(dataset, "BitsStored")), allocated))
    low = int(number) % (1 << bits)
    is_negative = stored.dtype.kind == "i" and low >= 1 << (bits - 1)
    return low - (1 << bits) if is_negative else low


def _of_modality(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.number]:
    for table in _tables(dataset, "ModalityLUTSequence"):
        if (found := _looked_up(stored, table)) is not None:
            return found[0]
    slope, intercept = numbers(dataset, "RescaleSlope"), numbers(dataset, "RescaleIntercept")
    if not intercept or not slope or slope[0] == 0:
        return stored
    values = stored.astype(np.float32)
    values *= slope[0]
    values += intercept[0]
    return values


def _of_interest(
    values: NDArray[np.number], shown: NDArray[np.number], dataset: Dataset
) -> Iterator[NDArray[np.float32]]:
    """The picture by each of the file's tables, then windows, that does not black or white it out.

    Args:
        values: All pixels.
        shown: Those without the padding.
        dataset: The file's elements.
    """
    for table in _tables(dataset, "VOILUTSequence"):
        if (found := _looked_up(values, table)) is not None:
            entries, bits = found
            grey = entries.astype(np.float32)
            grey /= (1 << bits) - 1
            if _shows(grey):
                yield grey
    function = text(dataset, "VOILUTFunction").upper()
    centers, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    for center, width in zip(centers, widths, strict=False):
        if width > (0 if function in ("LINEAR_EXACT", "SIGMOID") else 1) and _shows(
            _windowed(shown, center, width, function)
        ):
            yield _windowed(values, center, width, function)


def _shows(grey: NDArray[np.float32]) -> bool:
    """Whether not nearly all pixels are at one end, or at both."""
    at_an_end = np.count_nonzero(grey <= _AT_AN_END) + np.count_nonzero(grey >= 1 - _AT_AN_END)
    return bool(at_an_end < _NEARLY_ALL * grey.size)


def _windowed(
    values: NDArray[np.number], center: float, width: float, function: str
) -> NDArray[np.float32]:
    """Grey from 0 to 1 by a window (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    grey = values.astype(np.float32)
    if function == "SIGMOID":
        grey -= center
        grey *= -4 / width
        np.exp(grey, out=grey)
        grey += 1
        return np.reciprocal(grey, out=grey)
    if function == "LINEAR_EXACT":
        grey -= center
        grey /= width
    else:
        grey -= center - 0.5
        grey /= width - 1
    grey += 0.5
    return np.clip(grey, 0, 1, out=grey)


def _tables(dataset: Dataset, keyword: str) -> list[Dataset]:
    sequence = dataset.get(keyword)
    return [item for item in sequence or () if isinstance(item, Dataset)]


def _looked_up(
    values: NDArray[np.number], table: Dataset
) -> tuple[NDArray[np.integer], int] | None:
    """Entries of a lookup table, and their bits; None if the table cannot be used.

    Values before its first and after its last take those. Not pydicom's own: its apply_voi wraps
    the index at 256 when the entries have 8 bits.
    """
    descriptor = [int(number) for number in numbers(table, "LUTDescriptor")]
    if len(descriptor) != 3 or not 1 <= descriptor[2] <= 16:
        return None
    count = descriptor[0] % _SIXTEEN_BITS or _SIXTEEN_BITS  # 0 stands for 65,536
    entries = _entries(table, count)
    if entries is None:
        return None
    first = _first_value(values, descriptor[1], count)
    index = np.rint(values).astype(np.int32) if values.dtype.kind == "f" else values
    index = np.clip(index.astype(np.int32) - np.int32(first), 0, count - 1)
    # Writers give 8 bits to tables of 12.
    return entries[index], max(descriptor[2], int(entries.max()).bit_length())


def _entries(table: Dataset, count: int) -> NDArray[np.uint16] | None:
    """The table's data: bytes, 16-bit words in bytes, or numbers; None if they are too few."""
    data = table.get("LUTData")
    if isinstance(data, bytes):
        is_bytes = len(data) in (count, count + 1)  # padded to an even length
        if not is_bytes and len(data) < 2 * count:
            return None
        return np.frombuffer(data, "u1" if is_bytes else "<u2", count).astype(np.uint16)
    words = [int(number) % _SIXTEEN_BITS for number in numbers(table, "LUTData")]
    return np.array(words[:count], np.uint16) if len(words) >= count else None


def _first_value(values: NDArray[np.number], written: int, count: int) -> int:
    """The value of a table's first entry: read as signed or not, whichever covers more values.

    Its type depends on an element elsewhere (PS3.3, C.11.1.1.1), and writers get it wrong.
    """
    low, high = int(values.min()), int(values.max())
    unsigned = written % _SIXTEEN_BITS
    readings = (unsigned, unsigned - _SIXTEEN_BITS)
    return max(readings, key=lambda first: min(high, first + count - 1) - max(low, first))
