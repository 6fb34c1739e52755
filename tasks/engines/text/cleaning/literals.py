"""Pieces of text of which a pattern needs one to match, so that it is tried on few sentences.

`search` tries a pattern at every letter of a sentence; to look for a piece of text is twenty times
quicker, and most sentences have none of the pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_SHORTEST = 3
"""Letters of a piece that is worth a look; shorter ones are in every sentence."""

_MOST = 60
"""Pieces that are looked for; with more, the pattern itself is as quick."""

_GROUPS = {op.SUBPATTERN, op.ATOMIC_GROUP, op.ASSERT}
_REPEATS = {op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT}


def has_any(lowered: str, pieces: tuple[str, ...]) -> bool:
    """Whether one of the pieces is in a text in lower case; a plain loop, as it is hot."""
    for piece in pieces:  # noqa: SIM110
        if piece in lowered:
            return True
    return False


def needed_literals(pattern: str) -> tuple[str, ...]:
    """Pieces in lower case, one of which is in every text that the pattern matches, case aside.

    None are given where the pattern has no fixed part; then it may match any text.
    """
    return tuple(sorted(_of_sequence(parser.parse(pattern)) or ()))


def _of_sequence(items: Iterable[tuple[Any, Any]]) -> frozenset[str] | None:
    """The best of what the parts of a sequence need; all of them must match."""
    found: list[frozenset[str]] = []
    run = ""
    for kind, value in items:
        if kind is op.LITERAL:
            run += chr(value).lower()
            continue
        found.append(frozenset({run}))
        run = ""
        if (part := _of_part(kind, value)) is not None:
            found.append(part)
    found.append(frozenset({run}))
    useful = [p for p in found if len(p) <= _MOST and min(map(len, p)) >= _SHORTEST]
    return min(useful, key=lambda pieces: (len(pieces), -min(map(len, pieces))), default=None)


def _of_part(kind: Any, value: Any) -> frozenset[str] | None:
    if kind in _GROUPS:
        return _of_sequence(value if kind is op.ATOMIC_GROUP else value[-1])
    if kind in _REPEATS and value[0] > 0:
        return _of_sequence(value[2])
    if kind is op.BRANCH:
        needed = [_of_sequence(branch) for branch in value[1]]
        if all(pieces is not None for pieces in needed):
            return frozenset().union(*(pieces for pieces in needed if pieces))
    return None
