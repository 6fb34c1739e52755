"""Stored masks: bytes damaged, with the checksum of before or with one that fits."""

import struct
import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from storage.masks import decode_mask, encode_mask
from tests.fuzz.edits import Damaged, damaged, edited
from tests.fuzz.trials import Kind

_CHECKSUM = slice(5, 9)
_BODY = 9
_GEOMETRY = range(9 + 1 + 3 * 3 * 4)


class DamagedMask(NamedTuple):
    """Edits of an encoded mask, and whether its checksum is made to fit them."""

    damage: Damaged
    is_signed: bool


def inputs() -> SearchStrategy[DamagedMask]:
    """Damaged masks."""
    encoded = {name: encode_mask(mask) for name, mask in _masks().items()}
    return st.builds(DamagedMask, damaged(encoded, _GEOMETRY), st.booleans())


def outcome(given: DamagedMask, folder: Path) -> None:
    """Decode the mask; its checksum lets no other one pass."""
    intact = _masks()[given.damage.original]
    data = edited(encode_mask(intact), given.damage.edits)
    if given.is_signed and len(data) > _BODY:
        checksum = struct.pack("<I", zlib.crc32(data[_BODY:]))
        data = data[: _CHECKSUM.start] + checksum + data[_CHECKSUM.stop :]
    mask = decode_mask(data)
    assert mask.dtype == np.bool_
    if not given.is_signed:
        assert np.array_equal(mask, intact), "it is another mask"


@cache
def _masks() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0).random((12, 11, 10)) > 0.6
    film = np.zeros((40, 30), np.bool_)
    film[10:20, 5:25] = True
    return {"volume": noise, "film": film, "empty": np.zeros((4, 4, 4), np.bool_)}


KIND = Kind("stored masks", inputs, outcome)
