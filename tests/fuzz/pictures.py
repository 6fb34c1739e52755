"""PNG and JPEG pictures: bytes damaged, sizes declared that are not true."""

import io
import re
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from tests.fuzz.edits import Damaged, damaged, edited
from tests.fuzz.images import read_radiograph
from tests.fuzz.trials import Kind

_ODD_SIZES = (0, 1, 2, 31, 33, 999, 60_000)
_HEADER = range(200)
_PNG_CHECKED = slice(12, 29)
"""The header's name, width, height and form, before its checksum."""
_JPEG_FRAME = re.compile(rb"\xff[\xc0\xc2]\0.\x08", re.DOTALL)
"""SOF0 or SOF2 and its length and depth, before height and width."""


class Resized(NamedTuple):
    """A picture, and the rows and columns that its header gives it, checksum and all."""

    original: str
    rows: int
    columns: int


def inputs() -> SearchStrategy[Any]:
    """Damaged pictures."""
    names = st.sampled_from(sorted(_pictures()))
    size = st.sampled_from(_ODD_SIZES)
    return damaged(_pictures(), _HEADER) | st.builds(Resized, names, size, size)


def outcome(given: Damaged | Resized, folder: Path) -> None:
    """Load the picture; the checksums of PNG let no other one pass."""
    path = folder / "picture"
    original = _pictures()[given.original]
    if isinstance(given, Resized):
        path.write_bytes(_resized(original, given))
    else:
        path.write_bytes(edited(original, given.edits))
    pixels = read_radiograph(path).pixels
    if given.original.startswith("PNG") and isinstance(given, Damaged):
        path.write_bytes(original)
        assert np.array_equal(pixels, read_radiograph(path).pixels), "it has other pixels"


def _resized(data: bytes, given: Resized) -> bytes:
    if found := _JPEG_FRAME.search(data):
        sizes = struct.pack(">HH", given.rows, given.columns)
        return data[: found.end()] + sizes + data[found.end() + 4 :]
    sizes = struct.pack(">II", given.columns, given.rows)
    header = data[_PNG_CHECKED][:4] + sizes + data[_PNG_CHECKED][12:]
    checksum = struct.pack(">I", zlib.crc32(header))
    return data[: _PNG_CHECKED.start] + header + checksum + data[_PNG_CHECKED.stop + 4 :]


@cache
def _pictures() -> dict[str, bytes]:
    """A small film as each kind of PNG and JPEG that is read."""
    grey = np.random.default_rng(0).integers(0, 256, (32, 24)).astype(np.uint8)
    film = Image.fromarray(grey)
    wide = Image.fromarray(grey.astype(np.uint16) * 16)
    return {
        "PNG": _written(film, "PNG"),
        "PNG of 16 bits": _written(wide, "PNG"),
        "PNG of RGB": _written(film.convert("RGB"), "PNG"),
        "PNG with alpha": _written(film.convert("LA"), "PNG"),
        "PNG with palette": _written(film.convert("P"), "PNG"),
        "PNG of 1 bit": _written(film.convert("1"), "PNG"),
        "JPEG": _written(film, "JPEG"),
        "JPEG of RGB": _written(film.convert("RGB"), "JPEG", exif=_turned()),
        "JPEG, progressive": _written(film, "JPEG", progressive=True),
    }


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    return exif


def _written(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


KIND = Kind("PNG and JPEG", inputs, outcome)
