"""Bracketed phrases in text: `<p> … </p>` around each grounded phrase.

A space before a phrase moves inside its brackets, "the<p> left lung</p> is", so that the phrase has
the same tokens as without brackets; at the start of a text, which has no space to move, one is
added. Offsets are code points, half-open, into the text without brackets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

OPEN, CLOSE = "<p>", "</p>"
ABSENT_OPEN, ABSENT_CLOSE = "<np>", "</np>"
"""Brackets of a phrase whose target is absent from the image; in training answers only."""

Span = tuple[int, int]

_BRACKET = re.compile("|".join((OPEN, CLOSE, ABSENT_OPEN, ABSENT_CLOSE)))


def insert(text: str, spans: Sequence[Span]) -> str:
    """Insert brackets around phrases; the inverse of `parse`.

    Args:
        text: a text without brackets.
        spans: the phrases in reading order, not empty, not overlapping and not beginning with a
            space.

    Raises:
        ValueError: if the text has brackets already, or the spans are not as required.
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
        # The space before the phrase moves inside its brackets.
        outside = before.removesuffix(" ")
        added = " " if done + len(outside) == 0 else ""
        pieces += [outside, OPEN, added, before[len(outside) :], text[start:end], CLOSE]
        done = end
    return "".join([*pieces, text[done:]])


def parse(text: str) -> tuple[str, list[Span]]:
    """Remove the brackets from a text and return the spans of the phrases.

    A pair is an opening bracket whose next bracket closes it. Unpaired brackets are removed too; of
    nested pairs only the innermost counts, as in `model.data.phrases`.

    Returns:
        The text without brackets and the spans of the phrases in reading order; a span is empty if
        there is nothing between its brackets.
    """
    plain, spans = "", []
    opened = ""
    start = done = 0
    for bracket in _BRACKET.finditer(text):
        plain += _between(text[done : bracket.start()], opened, plain)
        if bracket[0] == CLOSE and opened == OPEN:
            start += plain[start:].startswith(" ")
            spans.append((start, len(plain)))
        # Only the last bracket is kept: of nested pairs the innermost counts.
        opened, start, done = bracket[0], len(plain), bracket.end()
    return plain + _between(text[done:], opened, plain), spans


def strip(text: str) -> str:
    """Return the text without brackets."""
    return parse(text)[0]


def _between(piece: str, bracket: str, plain: str) -> str:
    """The text after `bracket`, without the space that `insert` adds at the very start."""
    return piece.removeprefix(" ") if bracket in (OPEN, ABSENT_OPEN) and not plain else piece
