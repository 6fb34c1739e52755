"""Which side, zone and number belong to which finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from storage.records import Modifiers
from tasks.engines.text.lexicon.findings import Finding
from tasks.engines.text.lexicon.nouns import merge_sides
from tasks.engines.text.lexicon.places import Place, by_token
from tasks.engines.text.lexicon.sentence import Sentence
from tasks.engines.text.lexicon.vocabulary import Vocabulary

_NUMBER_REACH = 8
"""Tokens between a number and the noun that it counts, at most."""


@dataclass(slots=True)
class _Located:
    """A finding with its places: before the noun, behind it, or those of its surroundings."""

    finding: Finding
    before: list[Place]
    behind: list[Place]
    around: list[Place]

    @property
    def own(self) -> list[Place]:
        own = [place for place in self.before + self.behind if place.locates]
        return own or self.around


class ModifierFinder:
    """Attaches places and numbers to findings."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._separators = vocabulary.separators
        self._breaks = vocabulary.clause_breaks
        self._stops = vocabulary.linkers | vocabulary.prepositions | vocabulary.clause_breaks
        self._ends = self._stops | self._separators

    def attach(
        self, sentence: Sentence, findings: Sequence[Finding], places: Sequence[Place]
    ) -> list[Modifiers]:
        """The modifiers of each finding, order kept."""
        at = by_token(places, len(sentence.words))
        located = [self._locate(sentence, findings, i, at) for i in range(len(findings))]
        results = []
        for i, item in enumerate(located):
            if not (item.own or item.before):
                item.around = self._borrowed(sentence, located, i)
            low = findings[i - 1].after if i else 0
            results.append(self._modifiers(item, self._count(sentence, item.finding, low)))
        return results

    def _modifiers(self, item: _Located, count: int | None) -> Modifiers:
        if item.finding.target in self._vocabulary.midline:
            return Modifiers(count=count)
        side = merge_sides([p.side for p in item.before if p.side])
        side = side or merge_sides([p.side for p in item.own if p.side])
        zones = dict.fromkeys(zone for place in item.own for zone in place.all_zones)
        return Modifiers(side, tuple(zones), count)

    def _locate(
        self, sentence: Sentence, findings: Sequence[Finding], i: int, at: list[Place | None]
    ) -> _Located:
        finding = findings[i]
        low = findings[i - 1].after if i else 0
        high = len(sentence.words)
        if i + 1 < len(findings):
            high = self._group_start(sentence, findings[i + 1].first, finding.after, at)
        before = self._before(sentence, finding.first, low, at)
        before += [p for p in dict.fromkeys(at[finding.first : finding.after]) if p and p.locates]
        behind = self._behind(sentence, finding.after, high, at)
        if finding.site and finding.site.locates:
            behind = [p for p in dict.fromkeys([finding.site, *behind]) if p not in before]
        around = [] if before or behind else self._ahead(sentence, finding.first, low, at)
        return _Located(finding, before, behind, around)

    def _before(
        self, sentence: Sentence, first: int, low: int, at: list[Place | None]
    ) -> list[Place]:
        """Places among the adjectives of the noun group that ends at token `first`.

        An adjective of structure ("mediastinal") is one, though it says no side.
        """
        places: list[Place] = []
        t = first - 1
        while t >= low:
            if place := at[t]:
                places[:0] = [place] if place.locates or not place.target else []
                t = place.first - 1
            elif sentence.words[t] in self._ends and not self._joins_places(sentence, t, at, low):
                break
            else:
                t -= 1
        return places

    def _joins_places(self, sentence: Sentence, t: int, at: list[Place | None], low: int) -> bool:
        """Whether token t is the "and" of "left upper and right lower lobe"."""
        inside = low < t < len(sentence.words) - 1
        is_join = inside and sentence.words[t] in self._vocabulary.joins
        return is_join and at[t - 1] is not None and at[t + 1] is not None

    def _behind(
        self, sentence: Sentence, after: int, high: int, at: list[Place | None]
    ) -> list[Place]:
        """Places behind the noun, up to the next noun or clause."""
        places: list[Place] = []
        t = after
        while t < high:
            if place := at[t]:
                places += [place] if place.locates else []
                t = place.after
            elif self._goes_on(sentence, t, high, at):
                t += 1
            else:
                break
        return places

    def _goes_on(self, sentence: Sentence, t: int, high: int, at: list[Place | None]) -> bool:
        """Whether what is said of a finding goes on over token t."""
        word, following = sentence.words[t], sentence.word(t + 1)
        if word == ":":
            return self._opens_place(sentence, t, high, at)
        if word in self._breaks:
            return False
        if word not in (",", "and", "with"):
            return True
        if t + 1 >= high:
            return False
        if self._grades_place(sentence, t, at):
            return True
        place = at[t + 1]
        rest = sentence.words[t + 1 : high]
        if word == "and":
            return place is not None or following in self._vocabulary.prepositions | {"the"}
        if word == "with":  # "a nodule with a diameter of 3 mm is seen in …"
            linker = next((i for i, w in enumerate(rest) if w in self._vocabulary.linkers), high)
            return any(at[t + 1 + linker :]) and not any(at[t + 1 : t + 1 + linker])
        if following in self._vocabulary.continuations or (place and not place.target):
            return True
        end = next((i for i, w in enumerate(rest) if w in self._stops), len(rest))
        return not {"and", "or"}.isdisjoint(rest[:end])

    def _opens_place(self, sentence: Sentence, t: int, high: int, at: list[Place | None]) -> bool:
        """Whether the colon at token t tells where: "Nodule: left base", not "…: heart is big"."""
        place = at[t + 1] if t + 1 < high else None
        is_subject = place and sentence.word(place.after) in self._vocabulary.fillers["verbs"]
        return place is not None and place.locates and not is_subject

    def _grades_place(self, sentence: Sentence, t: int, at: list[Place | None]) -> bool:
        """Whether a degree and its place follow token t: "effusions, small on the left"."""
        grades = self._vocabulary.fillers["degrees"] | self._vocabulary.sizes
        preposition = t + 2
        where = preposition + 1 + (sentence.word(preposition + 1) == "the")
        return (
            sentence.word(t + 1) in grades
            and sentence.word(preposition) in self._vocabulary.prepositions
            and where < len(at)
            and at[where] is not None
        )

    def _group_start(self, sentence: Sentence, first: int, low: int, at: list[Place | None]) -> int:
        """Where the noun group begins whose noun is at token `first`."""
        for t in range(first - 1, low - 1, -1):
            if sentence.words[t] in self._separators and not self._joins_places(
                sentence, t, at, low
            ):
                return t
            if sentence.words[t] in self._stops and at[t] is None:
                return first
        return low

    def _ahead(
        self, sentence: Sentence, first: int, low: int, at: list[Place | None]
    ) -> list[Place]:
        """The nearest places earlier in the clause: "In the left lower lobe there is …"."""
        for t in range(first - 1, low - 1, -1):
            if sentence.words[t] in self._breaks:
                break
            if (place := at[t]) and place.locates:
                earlier = self._before(sentence, place.first, low, at)
                return [p for p in (*earlier, place) if p.locates]
        return []

    def _borrowed(self, sentence: Sentence, located: Sequence[_Located], i: int) -> list[Place]:
        """The places of a neighbour: "left effusion and atelectasis", "A or B at the left base"."""
        finding = located[i].finding
        if i + 1 < len(located) and located[i + 1].finding.noun is finding.noun:
            return located[i + 1].own
        if i > 0 and (earlier := located[i - 1]).own:
            gap = sentence.words[earlier.finding.after : finding.first]
            is_apart = gap[:2] == (",", "and") and earlier.around == []
            if self._breaks.isdisjoint(gap) and not is_apart:
                is_same = not self._vocabulary.equates.isdisjoint(gap)
                return earlier.own if is_same else [_side_only(p) for p in earlier.own]
        if i + 1 < len(located) and (later := located[i + 1]).behind and not later.before:
            gap = sentence.words[finding.after : later.finding.first]
            if self._stops.isdisjoint(gap) and not self._separators.isdisjoint(gap):
                return later.behind
        return []

    def _count(self, sentence: Sentence, finding: Finding, low: int) -> int | None:
        """The least number stated: a number word before the noun, or its plural."""
        noun = finding.noun
        is_countable = sentence.words[noun.after - 1] in self._vocabulary.countable
        plural = 2 if is_countable and sentence.is_plural(noun) else None
        for t in range(finding.first - 1, max(low, finding.first - _NUMBER_REACH) - 1, -1):
            unit, word = sentence.at[t], sentence.words[t]
            if unit and unit.term.kind == "number":
                if sentence.word(unit.after) in self._vocabulary.measures:
                    continue
                number = unit.term.number
                return max(number, plural) if plural else number if number == 1 else None
            if word in self._ends or word == "-":
                break
        return plural


def _side_only(place: Place) -> Place:
    """A structure lends its side; an adjective ("left basilar …") all it says."""
    return replace(place, zones=(), level=None) if place.target else place
