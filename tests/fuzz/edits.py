"""Damage to files: bytes flipped, overwritten, inserted, cut off, removed and repeated."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

ODD_NUMBERS = (0, 1, -1, 2, 3, 255, -32768, 65535, 2**31 - 1, 1e-30, 0.01, 1e3, 1e30)
NO_NUMBERS = (math.nan, math.inf, -math.inf)

_ODD_BYTES = (
    b"\0",
    b"\xff",
    bytes(2),
    b"\xff\xff",
    b"\x00\x80",
    bytes(4),
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x7f\xff\xff\xff",
    *(struct.pack("<f", number) for number in NO_NUMBERS),
)
_MOST_EDITS = 3
_LONGEST_PIECE = 64
"""Bytes removed or repeated at once."""


class Edit(NamedTuple):
    """Replace the bytes from start to stop, half-open, of the undamaged file."""

    start: int
    stop: int
    put: bytes


class Damaged(NamedTuple):
    """The name of an undamaged file and what is done to it."""

    original: str
    edits: tuple[Edit, ...]


def edited(data: bytes, edits: Sequence[Edit]) -> bytes:
    """The damaged file."""
    for edit in sorted(edits, reverse=True):  # the last first: what lies before keeps its place
        data = data[: edit.start] + edit.put + data[edit.stop :]
    return data


def damaged(
    originals: Mapping[str, bytes], places: Sequence[int] = (), pieces: Sequence[bytes] = ()
) -> SearchStrategy[Damaged]:
    """Up to three edits of one of the files, as of `edits_of`."""

    def of(name: str) -> SearchStrategy[Damaged]:
        return several(edits_of(originals[name], places, pieces)).map(
            lambda edits: Damaged(name, edits)
        )

    return st.sampled_from(sorted(originals)).flatmap(of)


def several(edits: SearchStrategy[Edit]) -> SearchStrategy[tuple[Edit, ...]]:
    """One edit, or up to three that begin at different bytes."""
    some = st.lists(edits, min_size=2, max_size=_MOST_EDITS, unique_by=lambda edit: edit.start)
    return st.tuples(edits) | some.map(tuple)


@st.composite
def edits_of(
    draw: DrawFn, data: bytes, places: Sequence[int] = (), pieces: Sequence[bytes] = ()
) -> Edit:
    """An edit of a file, half of them at `places`; half of them put in `pieces`, if there are."""
    somewhere = st.integers(0, len(data) - 1)
    at = draw(somewhere | st.sampled_from(places) if places else somewhere)
    at = min(at, len(data) - 1)
    if draw(st.booleans()) and pieces:
        return Edit(at, at, draw(st.sampled_from(pieces)))
    match draw(st.sampled_from(("flip", "flip", "overwrite", "put", "remove", "repeat", "cut"))):
        case "flip":
            return Edit(at, at + 1, bytes([data[at] ^ 1 << draw(st.integers(0, 7))]))
        case "overwrite":
            odd = draw(st.sampled_from(_ODD_BYTES))
            return Edit(at, at + len(odd), odd)
        case "put":
            return Edit(at, at, draw(st.sampled_from(_ODD_BYTES)))
        case "remove":
            return Edit(at, at + draw(st.integers(1, _LONGEST_PIECE)), b"")
        case "repeat":
            return Edit(at, at, data[at : at + draw(st.integers(1, _LONGEST_PIECE))])
        case _:
            return Edit(at, len(data), b"")
