"""Bracketed phrases in text: `<p> … </p>` around each phrase that something in the image shows.

A space before a phrase moves inside its brackets, "the<p> left lung</p> is", so that the phrase is
tokenised as it is without them; at the very start of a text, where there is none to move, one is
added. Offsets are code points, half-open, into the text without brackets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

OPEN, CLOSE = "<p>", "</p>"
ABSENT_OPEN, ABSENT_CLOSE = "<np>", "</np>"
"""Around a phrase that names what is known to be absent; in training answers only."""

Span = tuple[int, int]

_BRACKET = re.compile("|".join((OPEN, CLOSE, ABSENT_OPEN, ABSENT_CLOSE)))


def insert(text: str, spans: Sequence[Span]) -> str:
    """Put brackets around phrases; `parse` gives both back.

    Args:
        text: without any bracket.
        spans: the phrases in reading order, none empty, none overlapping another, none beginning
            with a space.

    Raises:
        ValueError: if the text has brackets already, or the spans are not as said.
    """
    if found := _BRACKET.search(text):
        raise ValueError(f"the text has the bracket {found[0]} of its own at {found.start()}")
    pieces: list[str] = []
    done = 0
    for start, end in spans:
        if not done <= start < end <= len(text):
            raise ValueError(
                f"the phrase at {start} to {end} is empty, out of order, or not within the"
                f" {len(text)} characters of the text"
            )
        before = text[done:start]
        outside = before.removesuffix(" ")
        added = " " if done + len(outside) == 0 else ""
        pieces += [outside, OPEN, added, before[len(outside) :], text[start:end], CLOSE]
        done = end
    return "".join([*pieces, text[done:]])


def parse(text: str) -> tuple[str, list[Span]]:
    """Take the brackets out of a text and say where the phrases are.

    A pair is an opening bracket whose next bracket closes it. Brackets without a partner are taken
    out all the same: of nested pairs the innermost one counts, as in `model.data.phrases`.

    Returns:
        The text without brackets and the phrases in reading order; one is empty if its brackets
        hold nothing.
    """
    plain, spans = "", []
    opened = ""
    start = done = 0
    for bracket in _BRACKET.finditer(text):
        plain += _between(text[done : bracket.start()], opened, plain)
        if bracket[0] == CLOSE and opened == OPEN:
            start += plain[start:].startswith(" ")
            spans.append((start, len(plain)))
        opened, start, done = bracket[0], len(plain), bracket.end()
    return plain + _between(text[done:], opened, plain), spans


def strip(text: str) -> str:
    """Return the text without brackets."""
    return parse(text)[0]


def _between(piece: str, bracket: str, plain: str) -> str:
    """The text after `bracket`, without the space that `insert` adds at the very start."""
    return piece.removeprefix(" ") if bracket in (OPEN, ABSENT_OPEN) and not plain else piece
