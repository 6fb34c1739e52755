"""How large an image may be. Headers are held against this before anything is decoded.

A few megabytes of PNG or RLE decode to gigabytes, so the size of a file says little of the memory
that it takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from math import prod
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from storage.images.types import ImageError

_ENVIRONMENT = "VIVIDMED_"
_BYTES_PER_PIXEL = 4
"""Of a film's file: 16 bits of grey take 2 in the file; overlays and private elements come on top,
and a colour picture that is grey in truth has 3."""


class LimitsError(ValueError):
    """A setting of a limit that is no number; written for the user."""


class ImageLimits(BaseSettings):
    """The limits, from the environment: `VIVIDMED_MAX_PIXELS`, `VIVIDMED_MAX_VOXELS`.

    max_pixels: of a radiograph. 14 × 17 inches digitized at 50 µm, the largest film in use, has 61
        million; decoding takes some 10 bytes each.
    max_voxels: of a CT volume. 512 × 512 × 2500 (a whole body in slices of 0.7 mm) has 655 million,
        1024 × 1024 × 1000 just fits; a loaded volume takes 2 bytes each.
    """

    model_config = SettingsConfigDict(env_prefix=_ENVIRONMENT, frozen=True)

    max_pixels: int = Field(default=8_000 * 8_000, gt=0)
    max_voxels: int = Field(default=1024 * 1024 * 1024, gt=0)


@cache
def image_limits() -> ImageLimits:
    """The limits that the environment sets; read once.

    Raises:
        LimitsError: if a variable holds no positive whole number.
    """
    try:
        return ImageLimits()
    except ValidationError as error:
        first = error.errors()[0]
        variable = f"{_ENVIRONMENT}{first['loc'][0]}".upper()
        raise LimitsError(
            f"{variable} is {first['input']!r}: it must be a positive whole number"
        ) from error


def check_pixels(path: Path, rows: int, columns: int) -> None:
    """Refuse a radiograph that has more pixels than the limit.

    Raises:
        ImageError: `too_large`.
    """
    _check(path, (rows, columns), "pixels", image_limits().max_pixels)


def check_voxels(path: Path, shape: Iterable[int]) -> None:
    """Refuse a volume that has more voxels than the limit.

    Raises:
        ImageError: `too_large`.
    """
    _check(path, shape, "voxels", image_limits().max_voxels)


def check_film_bytes(path: Path, count: int) -> None:
    """Refuse a radiograph's file, inflated or not, that no film within the limit can fill.

    Raises:
        ImageError: `too_large`.
    """
    if count > (limit := max_film_bytes()):
        raise ImageError(
            "too_large",
            f"{path} holds more than the {limit:,} bytes that a radiograph may have: "
            f"if it is one, set {_ENVIRONMENT}MAX_PIXELS higher",
        )


def max_film_bytes() -> int:
    """Bytes of the largest file that is read as a radiograph."""
    return _BYTES_PER_PIXEL * image_limits().max_pixels


def _check(path: Path, shape: Iterable[int], unit: str, limit: int) -> None:
    sizes = [int(size) for size in shape]  # of numpy's 16-bit headers: their product overflows
    if (count := prod(sizes)) > limit:
        raise ImageError(
            "too_large",
            f"{path} says that it has {' × '.join(map(str, sizes))} {unit}, {count:,} in all; "
            f"{limit:,} are read at most: if it is true, set "
            f"{_ENVIRONMENT}MAX_{unit.upper()} higher",
        )
