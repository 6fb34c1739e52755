"""Masks of two-dimensional images: PNG and TIFF pictures whose values are labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from storage.images.decoding import decoding
from storage.images.limits import check_film_bytes, check_pixels
from storage.images.placeholders import refuse_placeholder
from storage.images.types import ImageError

_KINDS: dict[bytes, type[ImageFile]] = {
    b"\x89PNG": PngImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"BM": BmpImageFile,
}
_COLOURS = ("RGB", "RGBA", "LA")


def read(path: Path) -> NDArray[np.unsignedinteger[Any]]:
    """The labels (rows, columns) of a picture, whole numbers of 0 or more.

    A picture in colour must have equal channels; transparency is ignored.

    Raises:
        ImageError: if it is missing, damaged, no picture, too large, or in colours.
    """
    if not path.is_file():
        raise ImageError("image_not_found", f"{path} cannot be found")
    refuse_placeholder(path)
    with decoding(path, "a picture of labels"):
        check_film_bytes(path, path.stat().st_size)
        return _labels(path)


def _labels(path: Path) -> NDArray[np.unsignedinteger[Any]]:
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(0)
        kind = next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)
        if kind is None:
            raise ImageError("image_unreadable", f"{path} is no PNG, TIFF or BMP picture")
        image = kind(stream)
        check_pixels(path, image.height, image.width)
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError("image_unsupported", f"{path} has several frames")
        if isinstance(image, TiffImageFile):
            values = np.asarray(image)
        else:
            image.load()
            values = np.asarray(image)
        mode = image.mode
    if mode in _COLOURS:
        grey = values[..., : 1 if mode == "LA" else 3]
        if (grey != grey[..., :1]).any():
            raise ImageError("image_unsupported", f"{path} is a picture in colours, not of labels")
        values = grey[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "uib" or values.min(initial=0) < 0:
        raise ImageError("image_unsupported", f"{path} holds no whole numbers of 0 or more")
    kinds = {1: np.uint8, 2: np.uint16}
    return values.astype(kinds.get(values.dtype.itemsize, np.uint32))
