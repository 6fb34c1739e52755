"""Which patterns may match a sentence at all, by the pieces of text that each one needs.

A search tries a pattern at every letter of a sentence, and there are hundreds of patterns. Most
need a word that the sentence does not have. So the words of a sentence are looked up once, and a
pattern is tried only where all that it needs is there; the look-up never hides a match.

What a pattern needs is derived from its parsed form, as RE2 does for its filtered sets: a part
with few matches is the set of these matches; where sets would grow too large, or a part can be
anything, what was gathered becomes a requirement, "one of these pieces", and the set begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import or_
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

Requirement = frozenset[str]
"""Pieces of text in lower case, one of which must be there. A space in one ends a word."""

Needs = list[list[Requirement]]
"""The ways in which a pattern may match, and all that each of them requires."""

Matches = frozenset[str]
"""All that a part of a pattern matches, in lower case."""

_MOST_MATCHES = 64
"""Matches to which the set of two parts in a row may grow."""

_MOST_WAYS = 24
"""Ways in which a pattern may match that are told apart."""

_SHORTEST = 2
"""Letters of a piece that is worth a look; single ones are in every sentence."""

_MOST_LETTERS = 4
"""Letters of a class ("[ /-]") up to which it is read as a set of them."""

_MOST_WORDS = 1 << 16
"""Words that are kept with what they meet; then all are forgotten."""

_REPEATS = {op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT}
_EMPTY: Matches = frozenset({""})
_ANYTHING: Needs = [[]]


def needs_of(pattern: str, words: Mapping[str, Requirement]) -> Needs:
    """What a text must have for the pattern to match it, case aside.

    A way without a requirement may match any text.

    Args:
        pattern: a regular expression, in which the names of `words` may stand, in escaped braces.
        words: long lists of words by the name that stands for them, so that none is parsed again.
    """
    filled = ([_with_words(requirement, words) for requirement in way] for way in _ways(pattern))
    return [list(dict.fromkeys(way)) for way in filled]


def know(needs: Mapping[str, list[list[list[str]]]]) -> None:
    """Take the needs of patterns from an earlier `known`, so that they need not be derived."""
    read = {
        pattern: [[frozenset(map(str, requirement)) for requirement in way] for way in ways]
        for pattern, ways in needs.items()
    }
    _KNOWN.update(read)


def known() -> dict[str, list[list[list[str]]]]:
    """The needs of every pattern that was asked for, as JSON values."""
    return {
        pattern: [[sorted(requirement) for requirement in way] for way in ways]
        for pattern, ways in _KNOWN.items()
    }


def known_patterns() -> int:
    """How many patterns' needs are known."""
    return len(_KNOWN)


def _ways(pattern: str) -> Needs:
    """The needs with the names as they stand, the same for every list of words."""
    if pattern not in _KNOWN:
        _KNOWN[pattern] = _all_needs(_sequence(parser.parse(pattern)))
    return _KNOWN[pattern]


_KNOWN: dict[str, Needs] = {}


def _with_words(requirement: Requirement, words: Mapping[str, Requirement]) -> Requirement:
    names = {piece: next((n for n in words if f"{{{n}}}" in piece), None) for piece in requirement}
    lists = (words[name] if name else {piece} for piece, name in names.items())
    return frozenset().union(*lists)


def _sequence(items: Iterable[tuple[Any, Any]]) -> tuple[Needs, Matches | None]:
    """What a sequence needs, and all that it matches if there are few matches, else None."""
    needs = _ANYTHING
    run, is_exact = _EMPTY, True
    for kind, value in items:
        more, matches = _part(kind, value)
        needs = _both(needs, more)
        if matches is not None and _may_join(run, matches):
            run = frozenset(a + b for a in run for b in matches)
            continue
        needs = _both(needs, [_required(run)])
        run, is_exact = matches or _EMPTY, False
    return (needs, run) if is_exact else (_both(needs, [_required(run)]), None)


def _may_join(left: Matches, right: Matches) -> bool:
    return len(left) * len(right) <= max(len(left), len(right), _MOST_MATCHES)


def _part(kind: Any, value: Any) -> tuple[Needs, Matches | None]:
    if kind is op.LITERAL:
        return _ANYTHING, _letters([(kind, value)])
    if kind is op.AT:
        is_start = value in (op.AT_BEGINNING, op.AT_BEGINNING_STRING)
        return _ANYTHING, frozenset({" "}) if is_start else _EMPTY
    if kind is op.IN:
        return _ANYTHING, _letters(value)
    if kind is op.ASSERT:
        return _all_needs(_sequence(value[1])), _EMPTY
    if kind is op.ASSERT_NOT:
        return _ANYTHING, _EMPTY
    if kind in (op.SUBPATTERN, op.ATOMIC_GROUP):
        return _sequence(value[-1] if kind is op.SUBPATTERN else value)
    if kind is op.BRANCH:
        return _branches(value[1])
    if kind in _REPEATS:
        return _repeat(*value)
    return _ANYTHING, None


def _repeat(least: int, most: int, item: Any) -> tuple[Needs, Matches | None]:
    needs, matches = _sequence(item)
    if matches is not None and most == 1:
        return (needs, matches) if least else (_ANYTHING, matches | _EMPTY)
    return (_all_needs((needs, matches)) if least else _ANYTHING), None


def _branches(branches: Iterable[Any]) -> tuple[Needs, Matches | None]:
    """The ways of all alternatives, or their matches where these are all that there is."""
    read = [_sequence(branch) for branch in branches]
    if all(matches is not None and needs == _ANYTHING for needs, matches in read):
        return _ANYTHING, frozenset().union(*(matches for _, matches in read if matches))
    ways = [way for part in read for way in _all_needs(part)]
    return (ways if len(ways) <= _MOST_WAYS else _one_way(ways)), None


def _all_needs(part: tuple[Needs, Matches | None]) -> Needs:
    needs, matches = part
    return needs if matches is None else _both(needs, [_required(matches)])


def _both(left: Needs, right: Needs) -> Needs:
    """What is needed where the needs of two parts must be met."""
    if len(left) * len(right) > _MOST_WAYS:
        left, right = (left, _one_way(right)) if len(left) > len(right) else (_one_way(left), right)
    return [[*a, *b] for a in left for b in right]


def _one_way(needs: Needs) -> Needs:
    """What several ways have in common: the rarest requirement of one or of the other."""
    if not all(needs):
        return _ANYTHING
    return [[frozenset().union(*(max(way, key=_rarity) for way in needs))]]


def _letters(items: Iterable[tuple[Any, Any]]) -> Matches | None:
    found: set[str] = set()
    for kind, value in items:
        if kind is not op.LITERAL or (chr(value).isspace() and chr(value) != " "):
            return None
        found.add(chr(value).lower())
    return frozenset(found) if len(found) <= _MOST_LETTERS else None


def _required(matches: Matches) -> list[Requirement]:
    """What a text needs that has one of some matches: its longest piece, its first, its last.

    A single match needs all its pieces; nothing is needed where a match has none.
    """
    found = [pieces(match) for match in matches]
    if len(found) == 1:
        return [frozenset({piece}) for piece in found[0]]
    if not all(found):
        return []
    chosen = (
        frozenset(max(of_match, key=len) for of_match in found),
        frozenset(of_match[0] for of_match in found),
        frozenset(of_match[-1] for of_match in found),
    )
    return list(dict.fromkeys(chosen))


def pieces(match: str) -> list[str]:
    """The parts of a match that lie in one word each, with the spaces that end the word."""
    words = match.split(" ")
    last = len(words) - 1
    return [
        f"{' ' if i else ''}{word}{' ' if i < last else ''}"
        for i, word in enumerate(words)
        if len(word) >= _SHORTEST
    ]


def _rarity(requirement: Requirement) -> tuple[int, int]:
    """Longer pieces are rarer, and fewer of them."""
    return min(map(len, requirement)), -len(requirement)


class WordIndex:
    """Tells which requirements the words of a sentence meet; a set of them is the bits of a number.

    What a word meets is found once and kept, as reports use the same few thousand words.
    """

    def __init__(self) -> None:
        self._bits: dict[Requirement, int] = {}
        self._by_piece: dict[str, int] = {}
        self._lengths: set[int] = set()
        self._known = _Remembered(self._met)

    def add(self, needs: Iterable[Requirement]) -> int:
        """The number that stands for some requirements."""
        added = 0
        for requirement in needs:
            if requirement not in self._bits:
                bit = self._bits[requirement] = 1 << len(self._bits)
                self._lengths.update(map(len, requirement))
                for piece in requirement:
                    self._by_piece[piece] = self._by_piece.get(piece, 0) | bit
                self._known.clear()
            added |= self._bits[requirement]
        return added

    def missing(self, lowered: str) -> int:
        """The number of all requirements that a sentence in lower case does not meet."""
        if len(self._known) > _MOST_WORDS:
            self._known.clear()
        return ~reduce(or_, map(self._known.__getitem__, lowered.split()), 0)

    def _met(self, word: str) -> int:
        padded = f" {word} "
        starts = range(len(padded))
        parts = {padded[i : i + n] for n in self._lengths for i in starts}
        return reduce(or_, (self._by_piece[part] for part in parts & self._by_piece.keys()), 0)


class _Remembered(dict[str, int]):
    """Answers by question; each is asked for once."""

    def __init__(self, answer: Callable[[str], int]) -> None:
        self._answer = answer

    def __missing__(self, question: str) -> int:
        answer = self[question] = self._answer(question)
        return answer
