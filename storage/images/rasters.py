"""PNG, JPEG and TIFF pictures of radiographs, read with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from storage.images.grayscale import stretched
from storage.images.limits import check_pixels
from storage.images.types import ImageError

SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_CLASSES: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "TIFF": TiffImageFile,
}
_CHANNEL_TOLERANCE = 8  # of 255: JPEG's rounding sets the channels of a grey image apart
_ROWS = 256  # rows compared at a time, so that copies stay small
_UPRIGHT = 1
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap rows and columns
_PNG_DEPTH = slice(24, 26)  # bit depth and colour type in the header
_PNG_WIDE_CHANNELS = (b"\x10\x02", b"\x10\x04", b"\x10\x06")  # 16 bits of RGB, LA, RGBA


def read_grey(path: Path) -> NDArray[np.float32]:
    """Grey from 0 to 1 of a picture whose channels agree, the way up that EXIF says.

    16 bits of grey are stretched: what part of their range is used is not said. ICC profiles and
    gamma are not applied. Transparent pixels are black.

    Raises:
        ImageError: `image_unsupported` for colour and several frames; `too_large`.
    """
    with path.open("rb") as stream:
        image = _opened(path, stream)
        if isinstance(image, PngImageFile):
            image.verify()  # the checksums, which load does not look at
            stream.seek(0)
            image = _opened(path, stream)
        early = image.info.get("exif")
        image.load()
        late: bytes | None = image.info.get("exif")
        if late is not None and late != early and _orientation_in(late) != _UPRIGHT:
            raise ImageError(
                "image_unsupported", f"{path} says which way up it is after its pixels"
            )
        return _grey(path, ImageOps.exif_transpose(image))


def read_shape(path: Path) -> tuple[int, int]:
    """Rows and columns, from the header.

    Raises:
        ImageError: `image_unsupported` for several frames; `too_large`.
    """
    with path.open("rb") as stream:
        image = _opened(path, stream)
        rows, columns = image.height, image.width
        return (columns, rows) if _orientation(image) in _TURNED else (rows, columns)


def check_grey(path: Path) -> None:
    """Refuse what `read_grey` refuses by its pixels; a picture of one channel is not decoded.

    Raises:
        ImageError: as `read_grey`.
    """
    with path.open("rb") as stream:
        mode = _opened(path, stream).mode
    if mode not in ("1", "L") and not mode.startswith("I"):
        read_grey(path)


def mean_of_channels(path: Path, rgb: NDArray[np.unsignedinteger]) -> NDArray[np.float32]:
    """The grey of red, green and blue (rows, columns, 3) that agree, in their unit.

    Raises:
        ImageError: `image_unsupported`, if they don't.
    """
    grey = np.empty(rgb.shape[:2], np.float32)
    tolerance = _CHANNEL_TOLERANCE / 255 * np.iinfo(rgb.dtype).max
    for start in range(0, len(rgb), _ROWS):
        rows = rgb[start : start + _ROWS]
        if np.ptp(rows.astype(np.int32), axis=2).max(initial=0) > tolerance:
            raise ImageError("image_unsupported", f"{path} is a colour image: a grey one is needed")
        grey[start : start + _ROWS] = rows.mean(axis=2)
    return grey


def _opened(path: Path, stream: BinaryIO) -> ImageFile:
    """The picture, its header read. By its class: Image.open has a limit of its own."""
    start = stream.read(_PNG_DEPTH.stop)
    stream.seek(0)
    kind = next(name for magic, name in SIGNATURES.items() if start.startswith(magic))
    is_png = kind == "PNG"
    image = _CLASSES[kind](stream)
    check_pixels(path, image.height, image.width)
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ImageError(
            "image_unsupported", f"{path} has {frames} frames: single images are needed"
        )
    if is_png and start[_PNG_DEPTH] in _PNG_WIDE_CHANNELS:
        raise ImageError(  # Pillow drops the lower 8 bits, and with them most of a 12-bit film
            "image_unsupported",
            f"{path} has channels of 16 bits: save it as 16 bits of grey without transparency",
        )
    return image


def _orientation(image: ImageFile) -> int:
    """EXIF's orientation, 1 to 8, as far as it is written before the pixels."""
    # Not the class's own getexif: that of a PNG decodes the pixels to look behind them.
    said: int = Image.Image.getexif(image).get(ExifTags.Base.Orientation, _UPRIGHT)
    return said


def _orientation_in(data: bytes) -> int:
    exif = Image.Exif()
    exif.load(data)
    said: int = exif.get(ExifTags.Base.Orientation, _UPRIGHT)
    return said


def _grey(path: Path, image: Image.Image) -> NDArray[np.float32]:
    if image.mode.startswith("I"):
        return stretched(np.asarray(image))
    if image.mode == "F":
        raise ImageError(
            "image_unsupported", f"{path} holds floats: save it as 8 or 16 bits of grey"
        )
    if image.mode == "CMYK":
        image = image.convert("RGB")
    alpha = None
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        image = image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
        alpha = np.asarray(image.getchannel("A"))
    if image.mode in ("1", "L", "LA"):
        grey = np.asarray(image.convert("L"), np.float32)
    else:
        grey = mean_of_channels(path, np.asarray(image.convert("RGB")))
    grey /= 255
    if alpha is not None and alpha.any():
        grey *= alpha / np.float32(255)
    return grey
