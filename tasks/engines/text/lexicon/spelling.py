"""Misspelled words of the vocabulary: "pnuemothorax", "cardiomegally".

Only long words of the field are guessed (`misspelled` of the vocabulary), never one of side or
polarity. Most words of a report are known, so the search is rare, and each word is searched for
once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set
from functools import lru_cache

from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

from taxonomy.impact import SHORTEST_GUESSED

_SHORTEST = SHORTEST_GUESSED
"""Letters of the shortest word that is guessed at: "oedma"; shorter ones are other words."""
_ONE_MISTAKE = 8
"""Letters of a word below which only a letter too many, too few or misplaced is a mistake."""
_TWO_MISTAKES = 10
"""Letters of a word from which it may have two mistakes; below, one."""
_ENDING = 2
"""Last letters that must agree unless one of them was dropped: else another form of a word would
be taken for a mistake."""
_REMEMBERED = 1 << 15


class Spelling:
    """Finds the word of the vocabulary that a misspelled one stands for."""

    def __init__(self, words: Collection[str], known: Iterable[str]) -> None:
        """Learn the words.

        Args:
            words: normal forms that a misspelled word may stand for.
            known: normal forms that are no mistakes, though they are like one of `words`.
        """
        self._by_initial: dict[str, list[str]] = {}
        for word in sorted(set(words)):
            self._by_initial.setdefault(word[0], []).append(word)
        self._known = frozenset(known).union(words)
        self._nearest = lru_cache(_REMEMBERED)(self._search)

    def corrections(self, words: Set[str]) -> dict[str, str]:
        """What is meant by those of the words that are misspelled."""
        return {w: meant for w in words - self._known if (meant := self.correct(w))}

    def correct(self, word: str) -> str | None:
        """The word that is meant; None where it is known, or like no other or like several."""
        if word in self._known or len(word) < _SHORTEST:
            return None
        return self._nearest(word)

    def _search(self, word: str) -> str | None:
        if not word.isalpha():
            return None
        near = extract(
            word,
            self._by_initial.get(word[0], ()),
            scorer=OSA.distance,
            score_cutoff=2,
            limit=None,
        )
        fitting = [(int(n), w) for w, n, _ in near if _fits(word, w, int(n))]
        if not fitting:
            return None
        least = min(n for n, _ in fitting)
        nearest = [w for n, w in fitting if n == least]
        return nearest[0] if len(nearest) == 1 else None


def _fits(word: str, meant: str, mistakes: int) -> bool:
    is_slip = mistakes == 1 and (len(word) != len(meant) or sorted(word) == sorted(meant))
    if word[-_ENDING:] != meant[-_ENDING:]:
        return is_slip and len(word) < len(meant) and word[-1] == meant[-1]
    if len(meant) < _ONE_MISTAKE:
        return is_slip
    return mistakes <= (2 if len(meant) >= _TWO_MISTAKES else 1)
