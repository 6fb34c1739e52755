"""The words around a noun of anatomy that belong to it: sides, zones and numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from storage.records import Laterality
from tasks.engines.text.lexicon.sentence import Sentence, Unit
from tasks.engines.text.lexicon.vocabulary import LUNG, RIB, Vocabulary, base_of
from taxonomy.targets import Taxonomy


@dataclass(slots=True)
class Conjunct:
    """Words before a noun, between two joins ("left 4th" of "left 4th and 5th ribs")."""

    first: int
    after: int
    sides: list[Laterality] = field(default_factory=list)
    zones: list[str] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)

    def add(self, unit: Unit, both_sides: bool) -> None:
        """Take the unit in front into the conjunct."""
        self.first = unit.first
        if unit.term.kind == "side":
            self.sides.insert(0, cast(Laterality, unit.term.value))
        elif unit.term.kind == "ordinal":
            self.ordinals.insert(0, unit.term.number)
        else:
            self.zones.insert(0, unit.term.value)
        if both_sides:
            self.sides.insert(0, "bilateral")

    @property
    def side(self) -> Laterality | None:
        """The side of all its words."""
        return merge_sides(self.sides)


def merge_sides(sides: list[Laterality]) -> Laterality | None:
    """One side for several: left with right is bilateral."""
    if not sides:
        return None
    return sides[0] if len(set(sides)) == 1 else "bilateral"


class NounReader:
    """Reads to the left and to the right of a noun."""

    def __init__(self, vocabulary: Vocabulary, taxonomy: Taxonomy) -> None:
        self._vocabulary = vocabulary
        self._taxonomy = taxonomy
        bases = {name: base_of(name, taxonomy)[0] for name in taxonomy.targets}
        self._numbers = {str(n) for n in range(1, len(vocabulary.ordinals) + 1)}
        self._paired = {base for name, base in bases.items() if base != name}

    def before(self, sentence: Sentence, noun: Unit, covered: int, base: str) -> list[Conjunct]:
        """The conjuncts in front of a noun, from left to right; the last one is the noun's own.

        Nothing before token `covered` is read. A structure that has no sides takes no side word:
        "right heart border".
        """
        kinds = ("side", "zone", "ordinal") if base in self._paired else ("zone",)
        numbers = base == RIB
        conjuncts = [Conjunct(noun.first, noun.first)]
        k = noun.first - 1
        while k >= covered:
            unit = sentence.at[k]
            if unit and unit.term.kind in kinds:
                both = sentence.words[unit.first] in self._vocabulary.both_sides
                conjuncts[-1].add(unit, both)
                k = unit.first - 1
            elif numbers and self._is_listed_number(sentence, k):
                conjuncts[-1].first = k
                conjuncts[-1].ordinals.insert(0, int(sentence.words[k]))
                k -= 1
            elif unit is None and sentence.words[k] == "the":
                k -= 1
            elif "side" in kinds and (end := self._joined(sentence, k, covered, kinds)):
                conjuncts.append(Conjunct(end, end))
                k = end - 1
            else:
                break
        return conjuncts[::-1]

    def _joined(
        self, sentence: Sentence, k: int, covered: int, kinds: tuple[str, ...]
    ) -> int | None:
        """Where words end that a join at token k connects to the noun, if there are any."""
        start = k
        joins = self._vocabulary.joins
        while k >= covered and sentence.at[k] is None and sentence.words[k] in joins:
            k -= 1
        if k == start or k < covered:
            return None
        unit = sentence.at[k]
        if unit is None or unit.term.kind not in kinds:
            return k + 1 if self._is_listed_number(sentence, k) else None
        only_comma = all(word == "," for word in sentence.words[k + 1 : start + 1])
        return None if only_comma and unit.term.kind == "side" else k + 1

    def _is_listed_number(self, sentence: Sentence, k: int) -> bool:
        """Whether token k is a number of several: "5-6 ribs", but not "3 ribs"."""
        joins = self._vocabulary.joins
        is_listed = sentence.word(k + 1) in joins or (k > 0 and sentence.words[k - 1] in joins)
        return is_listed and sentence.words[k] in self._numbers

    def part(self, sentence: Sentence, after: int, zones: list[str]) -> tuple[int, list[str]]:
        """Nouns of place behind "lung": its base, zone, field; the new end, and the zones."""
        zones = list(zones)
        while (unit := sentence.unit(after)) and unit.term.kind in ("zone noun", "place noun"):
            zones += [unit.term.value] if unit.term.value else []
            after = unit.after
        return after, zones

    def of_lung(self, sentence: Sentence, k: int) -> tuple[int, Laterality | None] | None:
        """What "of the right lung" at token k says: the token after it, and the side."""
        if sentence.word(k) not in ("of", "in"):
            return None
        k += 1
        sides: list[Laterality] = []
        while True:
            unit = sentence.unit(k)
            if unit and unit.term.kind == "side":
                sides.append(cast(Laterality, unit.term.value))
                k = unit.after
            elif unit is None and sentence.word(k) == "the":
                k += 1
            else:
                break
        if unit is None or unit.term.kind != "anatomy":
            return None
        base, own = base_of(unit.term.value, self._taxonomy)
        return (unit.after, merge_sides(sides) or own) if base == LUNG else None

    def side_after(self, sentence: Sentence, k: int, base: str) -> Laterality | None:
        """A side that follows a paired noun ("kidneys bilaterally", "5th rib on the left")."""
        if base not in self._paired:
            return None
        if sentence.word(k) in ("on", "in"):
            k += 1
            k += sentence.word(k) == "the"
        unit = sentence.unit(k)
        if unit is None or unit.term.kind != "side":
            return None
        following = sentence.unit(unit.after)
        if following and following.term.kind not in ("neither", "said"):
            return None
        return cast(Laterality, unit.term.value)

    def numbers_after(self, sentence: Sentence, k: int) -> tuple[list[tuple[int, int]], int]:
        """Numbers behind "ribs" ("3-5", "3, 4 and 5"): each with its end; then the end of all."""
        numbers: list[tuple[int, int]] = []
        after = k
        while (word := sentence.word(k)) in self._numbers:
            after = k = k + 1
            numbers.append((int(word), after))
            while sentence.word(k) in self._vocabulary.joins:
                k += 1
        return numbers, after

    @staticmethod
    def share_side(conjuncts: list[Conjunct], side: Laterality | None) -> None:
        """Give a side to the conjuncts of a noun if none of them has its own."""
        if side and not any(conjunct.sides for conjunct in conjuncts):
            for conjunct in conjuncts:
                conjunct.sides.append(side)
