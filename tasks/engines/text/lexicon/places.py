"""Where: the places of a sentence, composed of sides, zones, numbers and structures.

"left 4th and 5th ribs" is two places, "right upper and middle lobes" two, "both lung bases" one.
A side, a zone or a structure without a target ("hilar", "costophrenic angle") is a place too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import cast

from storage.records import Laterality
from tasks.engines.text.lexicon.nouns import Conjunct, NounReader, merge_sides
from tasks.engines.text.lexicon.sentence import Sentence, Unit
from tasks.engines.text.lexicon.vocabulary import (
    LUNG,
    RIB,
    Phrases,
    Term,
    Vocabulary,
    base_of,
    sided,
)
from taxonomy.targets import Taxonomy

_DISPLAY_REACH = 8
"""Words between a structure and the word "window", at most."""
_VERTEBRA = re.compile(r"([CTL])\d+ vertebra")


@dataclass(frozen=True, slots=True)
class Place:
    """Tokens `first` to `after` that say where; `head` is the first token of the noun itself.

    `others` are further targets of the same words.
    `level` is the zone that the target itself says (upper, of an upper lobe); `zones` the others.
    """

    first: int
    after: int
    head: int
    target: str | None = None
    structure: str | None = None
    side: Laterality | None = None
    zones: tuple[str, ...] = ()
    level: str | None = None
    others: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """All that its words name: several for a range, or for the cardiomediastinal contour."""
        return (self.target, *self.others) if self.target else ()

    @property
    def all_zones(self) -> tuple[str, ...]:
        """Zones for something that is in this place."""
        return (*self.zones, self.level) if self.level else self.zones

    @property
    def locates(self) -> bool:
        """Whether it says a side or a zone."""
        return self.side is not None or bool(self.all_zones)


def by_token(places: Iterable[Place], length: int) -> list[Place | None]:
    """For every token of a sentence the place that it belongs to."""
    at: list[Place | None] = [None] * length
    for place in places:
        at[place.first : place.after] = [place] * (place.after - place.first)
    return at


class Ranges:
    """Joins the two ends of a range into one place that names every member."""

    def __init__(self, vocabulary: Vocabulary, taxonomy: Taxonomy) -> None:
        self._joins = vocabulary.range_joins
        count = len(vocabulary.ordinals)
        numbers = range(1, count + 1)
        series = [[f"{side} {RIB} {n}" for n in numbers] for side in ("left", "right")]
        series.append([f"{letter}{n} vertebra" for letter in "CTLS" for n in numbers])
        self._series = [[name for name in names if name in taxonomy] for names in series]
        self._at = {n: (names, i) for names in self._series for i, n in enumerate(names)}

    def joined(self, sentence: Sentence, places: list[Place]) -> list[Place]:
        """The places, with those that are the ends of a range made one."""
        joined: list[Place] = []
        for place in places:
            inner = self._between(sentence, joined[-1], place) if joined else ()
            if not inner:
                joined.append(place)
                continue
            first = joined[-1]
            others = (*first.others, *inner, str(place.target))
            joined[-1] = replace(first, after=place.after, others=others)
        return joined

    def _between(self, sentence: Sentence, first: Place, last: Place) -> list[str]:
        """The members between the ends of a range; none where it is none, or has none."""
        gap = sentence.words[first.after : last.first]
        start = self._at.get(first.others[-1] if first.others else first.target or "")
        end = self._at.get(last.target or "")
        if not gap or not self._joins.issuperset(gap) or start is None or end is None:
            return []
        names, low = start
        return names[low + 1 : end[1]] if end[0] is names else []


class PlaceFinder:
    """Finds the places of a sentence."""

    def __init__(self, vocabulary: Vocabulary, taxonomy: Taxonomy, phrases: Phrases) -> None:
        self._vocabulary = vocabulary
        self._taxonomy = taxonomy
        self._phrases = phrases
        self._ranges = Ranges(vocabulary, taxonomy)
        self._levels = {target: level for level, target in vocabulary.lobes.items()}
        self._reader = NounReader(vocabulary, taxonomy)

    def find(self, sentence: Sentence) -> list[Place]:
        """Places in order, never overlapping."""
        places: list[Place] = []
        covered = 0
        for unit in sentence.units:
            if unit.first >= covered:
                named = self._named(sentence, unit, covered)
                if places and len(named) == 1 and not sentence.is_plural(unit):
                    named = [self._with_side_of(sentence, places[-1], named[0])]
                places += named
                covered = places[-1].after if places else 0
        places = self._ranges.joined(sentence, places)
        taken = {t for place in places for t in range(place.first, place.after)}
        bare = ("side", "zone", "zone noun", "structure")
        places += [
            self._bare(sentence, unit)
            for unit in sentence.units
            if unit.term.kind in bare and unit.first not in taken
        ]
        if not self._vocabulary.display.words.isdisjoint(sentence.all_words):
            places = [place for place in places if not self._is_display(sentence, place)]
        return sorted(places, key=lambda place: place.first)

    def _is_display(self, sentence: Sentence, place: Place) -> bool:
        """Whether a structure only says how the image is shown: "in the lung window"."""
        display = self._vocabulary.display
        for t in range(place.after, place.after + _DISPLAY_REACH):
            if sentence.word(t) in display.words:
                return True
            if sentence.word(t) not in display.between:
                break
        before = sentence.words[max(0, place.first - 3) : place.first]
        return "of" in before and not display.words.isdisjoint(before)

    def _with_side_of(self, sentence: Sentence, earlier: Place, place: Place) -> Place:
        """A place that shares the side of the one it is joined to: "right atrium and ventricle"."""
        gap = sentence.words[earlier.after : place.first]
        target = self._sided(place.target or "", earlier.side)
        if place.side or gap not in (("and",), ("or",)) or target == place.target:
            return place
        return replace(place, target=target, side=earlier.side)

    def _named(self, sentence: Sentence, unit: Unit, covered: int) -> list[Place]:
        """The places that share the noun `unit`."""
        if unit.term.kind == "zone noun":
            return self._part_of_lung(sentence, unit, covered)
        if unit.term.structure in self._vocabulary.composites:
            coordinated = self._coordinated(sentence, unit, unit.first, covered)
            return [*coordinated, self._composite(unit)]
        if unit.term.kind != "anatomy":
            return []
        base, own_side = base_of(unit.term.value, self._taxonomy)
        if not self._vocabulary.not_with.get(base, frozenset()).isdisjoint(sentence.all_words):
            return []
        conjuncts = self._reader.before(sentence, unit, covered, base)
        if own_side:
            conjuncts[-1].sides.append(own_side)
        if base == RIB:
            return list(self._ribs(sentence, unit, conjuncts))
        if base in self._levels:
            return list(self._lobes(sentence, unit, conjuncts, base))
        if vertebra := _VERTEBRA.fullmatch(base):
            return self._vertebrae(sentence, unit, base, vertebra[1])
        after = unit.after
        if base == LUNG:
            after, conjuncts[-1].zones[:] = self._reader.part(sentence, after, conjuncts[-1].zones)
        self._reader.share_side(conjuncts, self._reader.side_after(sentence, after, base))
        structure = unit.term.structure or base
        coordinated = self._coordinated(sentence, unit, conjuncts[0].first, covered)
        named = {place.structure for place in coordinated} | {structure}
        whole = (c for c, parts in self._vocabulary.composites.items() if named.issuperset(parts))
        structure = next(whole, structure)
        return [*coordinated, *self._merged(unit, conjuncts, base, structure, after)]

    def _composite(self, unit: Unit) -> Place:
        """The places of words that name several structures: the cardiomediastinal contour."""
        structure = unit.term.structure or ""
        targets = [t for t in self._vocabulary.composites[structure] if t in self._taxonomy]
        target = targets[0] if targets else None
        others = tuple(targets[1:])
        return Place(unit.first, unit.after, unit.first, target, structure, others=others)

    def _coordinated(self, sentence: Sentence, unit: Unit, first: int, covered: int) -> list[Place]:
        """Adjectives that share the noun's last words: "hilar and mediastinal contours".

        They are looked for before token `first`.
        """
        rest = sentence.words[unit.first + 1 : unit.after]
        places: list[Place] = []
        k = first
        while rest:
            j = k - 1
            while j >= covered and sentence.words[j] in self._vocabulary.joins:
                j -= 1
            term = self._alone(sentence, j, rest) if covered <= j < k - 1 else None
            if term is None:
                break
            k = j
            if term.structure in self._vocabulary.composites:
                places.insert(0, self._composite(Unit(j, j + 1, term)))
                continue
            before = sentence.at[j - 1] if j > covered else None
            base = base_of(term.value, self._taxonomy)[0]
            side: Laterality | None = None
            if before is not None and before.term.kind == "side":
                side = cast(Laterality, before.term.value)
            target = self._sided(base, side)
            if before is not None and target != base:
                k = before.first
            places.insert(0, Place(k, j + 1, j, target, term.structure, side if k < j else None))
        return places

    def _alone(self, sentence: Sentence, j: int, rest: tuple[str, ...]) -> Term | None:
        """The structure that token j names with the last words of another one's name."""
        unit = sentence.at[j]
        if unit and (unit.after - unit.first > 1 or unit.term.kind in ("anatomy", "finding")):
            return None
        _, term = self._phrases.get((sentence.words[j], *rest), ("", None))
        is_composite = term and term.structure in self._vocabulary.composites
        return term if term and (term.kind == "anatomy" or is_composite) else None

    def _merged(
        self, unit: Unit, conjuncts: list[Conjunct], base: str, structure: str, after: int
    ) -> list[Place]:
        """One place for all conjuncts, but for those with their own side and zone."""
        *others, last = conjuncts
        apart = [c for c in others if c.sides and c.zones and last.sides and last.zones]
        together = [c for c in others if c not in apart] + [last]
        places = [
            self._place(c.first, c.after, c.first, base, structure, c.sides, c.zones) for c in apart
        ]
        sides = [side for c in together for side in c.sides]
        zones = [zone for c in together for zone in c.zones]
        first = together[0].first
        return [*places, self._place(first, after, unit.first, base, structure, sides, zones)]

    def _part_of_lung(self, sentence: Sentence, unit: Unit, covered: int) -> list[Place]:
        """The right base, both apices, the base of the left lung."""
        conjuncts = self._reader.before(sentence, unit, covered, LUNG)
        after = unit.after
        if lung := self._reader.of_lung(sentence, after):
            after = lung[0]
            self._reader.share_side(conjuncts, lung[1])
        else:
            is_lungs = sentence.is_plural(unit) or any(c.sides for c in conjuncts)
            if sentence.word(after) == "of" or not is_lungs:
                return []
            after, conjuncts[-1].zones[:] = self._reader.part(sentence, after, conjuncts[-1].zones)
        conjuncts[-1].zones.append(unit.term.value)
        return self._merged(unit, conjuncts, LUNG, LUNG, after)

    def _lobes(
        self, sentence: Sentence, unit: Unit, conjuncts: list[Conjunct], base: str
    ) -> Iterator[Place]:
        """Upper and middle lobes of the right lung; right and left lower lobes."""
        after = unit.after
        if lung := self._reader.of_lung(sentence, after):
            after = lung[0]
            self._reader.share_side(conjuncts, lung[1])
        self._reader.share_side(conjuncts, self._reader.side_after(sentence, after, base))
        sides: list[Laterality] = []
        waiting: Conjunct | None = None
        for conjunct in conjuncts:
            is_last = conjunct is conjuncts[-1]
            levels = [z for z in conjunct.zones if z in self._vocabulary.lobes]
            if not is_last and not levels:
                waiting = conjunct
                continue
            sides = waiting.sides + conjunct.sides if waiting else conjunct.sides or sides
            first = waiting.first if waiting else conjunct.first
            waiting = None
            target = base if is_last else self._vocabulary.lobes[levels[-1]]
            zones = [z for z in conjunct.zones if is_last or z != levels[-1]]
            head, end = (unit.first, after) if is_last else (conjunct.first, conjunct.after)
            place = self._place(first, end, head, target, target, sides, zones)
            yield replace(place, level=self._levels[target])

    def _ribs(self, sentence: Sentence, unit: Unit, conjuncts: list[Conjunct]) -> Iterator[Place]:
        """Left 4th and 5th ribs; ribs 3, 4 and 5 on the right. Of a range, at first its ends."""
        listed, after = self._reader.numbers_after(sentence, unit.after)
        last = conjuncts[-1]
        side_after = self._reader.side_after(sentence, after, RIB)
        self._reader.share_side(conjuncts, side_after)
        side = next((c.side for c in conjuncts if c.side), None)
        end = unit.after
        if listed and not last.ordinals:
            number, end = listed.pop(0)
            last.ordinals.append(number)
        for conjunct in conjuncts:
            side = conjunct.side or side
            if conjunct.ordinals or conjunct is last:
                stop = end if conjunct is last else conjunct.after
                yield self._rib(conjunct, unit.first, stop, side)
        for number, stop in listed:
            yield self._rib(Conjunct(stop - 1, stop, ordinals=[number]), stop - 1, stop, side)

    def _rib(self, conjunct: Conjunct, head: int, after: int, side: Laterality | None) -> Place:
        numbered = f"{side} {RIB} {conjunct.ordinals[0]}" if conjunct.ordinals else ""
        target = numbered if numbered in self._taxonomy else self._sided(RIB, side)
        return Place(conjunct.first, after, head, target, RIB, side, tuple(conjunct.zones))

    def _vertebrae(self, sentence: Sentence, unit: Unit, name: str, letter: str) -> list[Place]:
        """T8; T11-12, where the second number stands alone."""
        places = [Place(unit.first, unit.after, unit.first, name, "vertebrae")]
        k = unit.after + 1
        second = f"{letter}{sentence.word(k)} vertebra"
        if sentence.word(unit.after) in ("-", "–", "/") and second in self._taxonomy:
            places.append(Place(k, k + 1, k, second, "vertebrae"))
        return places

    def _bare(self, sentence: Sentence, unit: Unit) -> Place:
        """A side, a zone, or a structure that is no target."""
        structure = unit.term.structure
        if unit.term.kind == "structure":
            level = self._vocabulary.structure_zones.get(structure or "")
            return Place(unit.first, unit.after, unit.first, None, structure, level=level)
        conjunct = Conjunct(unit.first, unit.after)
        conjunct.add(unit, sentence.words[unit.first] in self._vocabulary.both_sides)
        zones = tuple(conjunct.zones)
        return Place(unit.first, unit.after, unit.first, None, None, conjunct.side, zones)

    def _place(
        self, first: int, after: int, head: int, base: str, structure: str,
        sides: list[Laterality], zones: list[str],
    ) -> Place:  # fmt: skip
        side = merge_sides(sides)
        level = self._vocabulary.structure_zones.get(structure)
        named = tuple(dict.fromkeys(zones))
        return Place(first, after, head, self._sided(base, side), structure, side, named, level)

    def _sided(self, base: str, side: Laterality | None) -> str:
        return sided(base, side, self._taxonomy)
