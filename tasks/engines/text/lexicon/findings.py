"""What: findings named directly, or by what is said of a structure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tasks.engines.text.lexicon.context import Context
from tasks.engines.text.lexicon.places import Place, by_token
from tasks.engines.text.lexicon.sentence import Sentence, Unit
from tasks.engines.text.lexicon.vocabulary import Vocabulary

_SINGULAR = frozenset({"is", "was", "has"})
_REACH = 12
"""Tokens between a structure and what is said of it, at most."""

Said = Mapping[tuple[str, str], str]
"""Structure and what is said of it, to target."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Tokens `first` to `after` that name an abnormality; `noun` is the unit that carries it.

    `absorbs` is a place inside the span, `site` one that the finding is a predicate of.
    """

    first: int
    after: int
    target: str
    noun: Unit
    absorbs: Place | None = None
    site: Place | None = None


class FindingFinder:
    """Finds the findings of a sentence whose places are known."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._whole = {p.target for p in vocabulary.predicates if p.whole}
        self._context = Context(vocabulary)
        self._predicates: Said = {
            (structure, word): p.target
            for p in vocabulary.predicates
            for structure in p.structures
            for word in (*p.states, *p.nouns)
        }
        self._refinements: Said = {
            (structure, word): r.target
            for r in vocabulary.refinements
            for structure in r.structures
            for word in r.words
        }
        self._continued: Said = {
            (earlier, word): p.target
            for p in vocabulary.predicates
            for earlier in p.after
            for word in p.nouns
        }
        self._nouns = {word for p in vocabulary.predicates for word in p.nouns}
        self._refined_words = {word for r in vocabulary.refinements for word in r.words}
        self._nouns |= self._refined_words
        self._fillers = frozenset({"the"}.union(*vocabulary.fillers.values()))
        self._verbs = vocabulary.fillers["verbs"]

    def find(self, sentence: Sentence, places: list[Place]) -> list[Finding]:
        """Findings in order, never overlapping."""
        at = by_token(places, len(sentence.words))
        found: list[Finding] = []
        for unit in sentence.units:
            told = list(self._told(sentence, unit, at)) if unit.term.said else []
            if told:
                found += told
            elif unit.term.kind == "finding":
                found += self._named(sentence, unit)
            elif continued := self._continuing(sentence, unit, found):
                found.append(continued)
        return _apart(found)

    def _named(self, sentence: Sentence, unit: Unit) -> Iterator[Finding]:
        """A finding named directly; "pericardial or pleural effusion" names two."""
        target = self._context.target(sentence, unit)
        if target is None:
            return
        k = self._before_joins(sentence, unit.first)
        shared = self._vocabulary.shared_heads.get(target, {})
        if k < unit.first - 1 and (other := shared.get(sentence.words[k])):
            yield Finding(k, k + 1, other, unit)
        if also := self._context.also(sentence, unit):
            yield Finding(also[0], also[0] + 1, also[1], unit)
        for name in (target, *unit.term.besides):
            yield Finding(unit.first, unit.after, name, unit)

    def _before_joins(self, sentence: Sentence, first: int) -> int:
        """The last token before the joins in front of token `first`; 0 at the start."""
        k = first - 1
        while k > 0 and sentence.words[k] in self._vocabulary.joins:
            k -= 1
        return k

    def _continuing(self, sentence: Sentence, unit: Unit, found: list[Finding]) -> Finding | None:
        """A noun that goes with an adjective before: "pleural effusion or thickening"."""
        if not (found and unit.term.said):
            return None
        earlier = found[-1]
        target = self._continued.get((earlier.target, unit.term.said))
        if target is None or self._before_joins(sentence, unit.first) != earlier.after - 1:
            return None
        return Finding(unit.first, unit.after, target, unit)

    def _told(self, sentence: Sentence, unit: Unit, at: list[Place | None]) -> Iterator[Finding]:
        """A finding stated as a predicate of a structure.

        Examples are "heart is enlarged" and "fracture of the left 5th rib".
        """
        before = self._structure(sentence, unit, at, step=-1)
        behind = self._structure(sentence, unit, at, step=+1)
        verbs = sentence.words[max(0, unit.first - 4) : unit.first]
        is_predicate = not self._verbs.isdisjoint(verbs)
        is_predicate |= before is not None and before.after == unit.first
        place = (before or behind) if is_predicate else (behind or before)
        if place is None:
            return
        key = (place.structure or "", unit.term.said or "")
        if target := self._refinements.get(key):
            yield from self._refined(sentence, unit, place, target, at)
        else:
            target = self._predicates[key]
            if place.target and target not in self._whole:
                first = self._without_verb(sentence, unit)
                yield Finding(first, unit.after, target, unit, site=place)
                if other := self._coordinated(sentence, unit, place, at):
                    name = self._predicates[other.structure or "", unit.term.said or ""]
                    if name != target and name not in self._whole:
                        yield Finding(first, unit.after, name, unit, site=other)
                return
            first, after = min(place.first, unit.first), max(place.after, unit.after)
            yield Finding(first, after, target, unit, absorbs=place)

    def _coordinated(
        self, sentence: Sentence, unit: Unit, place: Place, at: list[Place | None]
    ) -> Place | None:
        """A second structure of which the same is said: "changes of the spine and shoulder".

        A verb in the singular speaks of the nearer one alone.
        """
        is_before = place.after <= unit.first
        if is_before and not _SINGULAR.isdisjoint(sentence.words[place.after : unit.first]):
            return None
        t, joins = (place.first - 1, 0) if is_before else (place.after, 0)
        while 0 <= t < len(at):
            other = at[t]
            if other and other.structure:
                key = (other.structure, unit.term.said or "")
                return other if joins and key in self._predicates else None
            if other is None and sentence.words[t] not in ("and", "the"):
                return None
            joins += sentence.words[t] == "and"
            t += -1 if is_before else 1
        return None

    def _without_verb(self, sentence: Sentence, unit: Unit) -> int:
        """Where the words begin that name the finding: "large", of "is slightly large"."""
        first = unit.first
        while first + 1 < unit.after and (
            sentence.words[first] in self._verbs or sentence.words[first].endswith("ly")
        ):
            first += 1
        return first

    def _refined(
        self, sentence: Sentence, unit: Unit, place: Place, target: str, at: list[Place | None]
    ) -> Iterator[Finding]:
        """The word alone, or with an unnumbered structure right before it: "rib fracture"."""
        if place.after != unit.first or _is_numbered(place):
            yield Finding(unit.first, unit.after, target, unit, site=place)
            return
        k = self._before_joins(sentence, place.first)
        if k < place.first - 1 and (earlier := at[k]):
            other = self._refinements.get((earlier.structure or "", unit.term.said or ""))
            if other and not _is_numbered(earlier):
                yield Finding(earlier.head, earlier.after, other, unit, earlier, earlier)
        yield Finding(place.head, unit.after, target, unit, place, place)

    def _structure(
        self, sentence: Sentence, unit: Unit, at: list[Place | None], step: int
    ) -> Place | None:
        """The nearest structure that goes with what is said, over filler words only."""
        said = unit.term.said or ""
        t = unit.first - 1 if step < 0 else unit.after
        for _ in range(_REACH):
            if not 0 <= t < len(sentence.words):
                return None
            if place := at[t]:
                key = (place.structure or "", said)
                if key in self._predicates or key in self._refinements:
                    return place
                t = place.first - 1 if step < 0 else place.after
                if place.target and sentence.word(t) not in self._vocabulary.separators:
                    return None
            elif self._skips(sentence, t, said, step):
                t += step
            else:
                return None
        return None

    def _skips(self, sentence: Sentence, t: int, said: str, step: int) -> bool:
        """Whether token t may stand between a structure and what is said of it."""
        unit, word = sentence.at[t], sentence.words[t]
        kind = unit.term.kind if unit else None
        if word == ",":
            return self._skips_comma(sentence, t, said, step)
        if word == ":":
            return step < 0 and self._opens_answer(sentence, t)
        if word in self._fillers or word in self._vocabulary.linkers or word[0].isdigit():
            return True
        if word.endswith("ly") and word not in self._vocabulary.not_degrees:
            return True
        if kind in ("said", "number", "ordinal"):
            return True
        if step > 0:  # "tortuosity and atherosclerosis of the aorta", "kyphotic osteopenic spine"
            is_open = kind == "finding" or word in self._vocabulary.prepositions
            is_state = unit is not None and kind == "finding" and unit.term.said is not None
            return is_state or (is_open and said in self._nouns)
        if kind == "finding" and unit is not None:  # "aortic calcification and tortuosity"
            return said in self._nouns and sentence.word(unit.after) in self._vocabulary.joins
        return self._skips_back(sentence, t, said)

    def _opens_answer(self, sentence: Sentence, t: int) -> bool:
        """Whether what is said of a label follows the colon at token t: "Heart: enlarged"."""
        answer = sentence.unit(t + 1)
        is_said = answer is not None and answer.term.said is not None
        return is_said or sentence.word(t + 1) in self._vocabulary.fillers["degrees"]

    def _skips_comma(self, sentence: Sentence, t: int, said: str, step: int) -> bool:
        """A comma before a further thing said, a structure ("fracture, left rib") or a measure."""
        further = sentence.unit(max(t + step, 0))
        if step > 0:
            is_told = further is not None and further.term.said is not None
            return is_told or (further is not None and said in self._refined_words)
        return further is not None or sentence.words[t - 1] in self._vocabulary.measures

    def _skips_back(self, sentence: Sentence, t: int, said: str) -> bool:
        """Words between "ribs" and "fractured" ("on the left"), or "from old fractures"."""
        word = sentence.words[t]
        if said in self._refined_words:
            return word == "with" or word in self._vocabulary.prepositions
        following = sentence.unit(t + 1 + (sentence.word(t + 1) == "the"))
        is_side = following is not None and following.term.kind == "side"
        return is_side and word in self._vocabulary.prepositions


def _is_numbered(place: Place) -> bool:
    return place.target is not None and place.target[-1].isdecimal()


def _apart(found: list[Finding]) -> list[Finding]:
    """In order and apart: a structure goes to the nearest word that is said of it.

    Of two that still share a word, as "calcific" and "calcific density", the longer stays; both do
    if they share all.
    """
    if any(finding.absorbs for finding in found):
        rivals = _Rivals(found)
        found = [_shrunk(f) if f.absorbs and rivals.cross(f) else f for f in found]
    apart: list[Finding] = []
    taken: set[int] = set()
    named: dict[tuple[int, int], set[str]] = {}
    for finding in sorted(found, key=lambda f: (f.first - f.after, f.first)):
        tokens = range(finding.first, finding.after)
        targets = named.get((finding.first, finding.after))
        if taken.isdisjoint(tokens) or (targets and finding.target not in targets):
            taken.update(tokens)
            named.setdefault((finding.first, finding.after), set()).add(finding.target)
            apart.append(finding)
    return sorted(apart, key=lambda finding: finding.first)


def _shrunk(finding: Finding) -> Finding:
    return replace(finding, first=finding.noun.first, after=finding.noun.after, absorbs=None)


class _Rivals:
    """The findings of a sentence by the token of their noun and by the structure they absorb."""

    def __init__(self, found: list[Finding]) -> None:
        self._nouns = {f.noun.first: f.noun for f in found}
        self._by_place: dict[Place, list[Finding]] = defaultdict(list)
        for finding in found:
            if finding.absorbs:
                self._by_place[finding.absorbs].append(finding)

    def cross(self, finding: Finding) -> bool:
        """Whether another finding's noun lies inside, or is nearer to the structure."""
        inside = (self._nouns.get(t) for t in range(finding.first, finding.after))
        if any(noun and noun is not finding.noun for noun in inside):
            return True
        mine = _distance(finding)
        return any(
            (_distance(other), other.first) < (mine, finding.first)
            for other in (self._by_place[finding.absorbs] if finding.absorbs else ())
            if other.noun is not finding.noun
        )


def _distance(finding: Finding) -> int:
    """Tokens between a finding's noun and the structure that it absorbs."""
    noun, place = finding.noun, finding.absorbs
    return max(place.first - noun.after, noun.first - place.after) if place else 0
