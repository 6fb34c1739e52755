"""What a general word ("nodule", "effusion", "scar") means among the words around it."""

from __future__ import annotations

from tasks.engines.text.lexicon.sentence import Sentence, Unit
from tasks.engines.text.lexicon.vocabulary import LUNG, Vocabulary

_OWN_REACH = 4
"""Adjectives of a noun that are looked at, at most."""
_QUALIFIERS = 7
"""Words in front of a noun and its conjuncts that are looked at, at most."""
_BACK = 40
"""Words of the sentence before a noun that can name the lung, at most."""
_INSIDE = frozenset({"in", "of", "involving", "within", "from", "at"})
"""Prepositions between a finding and the bone that it is in; what is over a rib is in the lung."""
LOST = "xxxx"
"""What stands for words lost to de-identification, as a word in its normal form."""
_SCOPE = 14
"""Words behind a noun that can say where it is, at most."""


class Context:
    """Decides by the places named around a word whether it is a finding of the chest."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._places = vocabulary.places
        self._breaks = vocabulary.clause_breaks | {"and", "with"}
        self._prepositions = vocabulary.prepositions
        self._linkers = vocabulary.linkers
        self._stops = vocabulary.separators | vocabulary.prepositions | vocabulary.linkers
        self._stops |= {";", ":"}
        self._sites = (self._prepositions & _INSIDE) | vocabulary.destroying

    def target(self, sentence: Sentence, unit: Unit) -> str | None:
        """The target that the word means here, if any."""
        term = unit.term
        if not (term.unless or term.only or term.instead or term.inside):
            return term.value
        qualifiers = self._qualifiers(sentence, unit)
        if instead := next((t for word, t in term.instead if word in qualifiers), None):
            return instead
        if (inside := self._inside(sentence, unit)) or term.only == "inside":
            return inside
        if not (term.unless or term.only):
            return term.value
        own = self._own_words(sentence, unit)
        excluded = self._places[term.unless] if term.unless else frozenset[str]()
        if not own.isdisjoint(excluded):
            return None
        if term.unless == "elsewhere" and self._is_of_bone(sentence, unit):
            return None
        if self._names_lung(sentence, unit, own):
            return term.value
        is_elsewhere = not self._subject(sentence, unit).isdisjoint(excluded)
        return None if term.only or is_elsewhere else term.value

    def also(self, sentence: Sentence, unit: Unit) -> tuple[int, str] | None:
        """A word in front that names a target of its own ("calcified nodule"): token, target."""
        qualifiers = self._qualifiers(sentence, unit)
        return next(
            ((qualifiers[word], target) for word, target in unit.term.also if word in qualifiers),
            None,
        )

    def _qualifiers(self, sentence: Sentence, unit: Unit) -> dict[str, int]:
        """The words in front of a noun and of what it is joined to, with their tokens."""
        ends = (self._prepositions | self._linkers | {".", ";"}) - {LOST}
        qualifiers: dict[str, int] = {}
        for t in range(unit.first - 1, max(-1, unit.first - _QUALIFIERS - 1), -1):
            if sentence.words[t] in ends:
                break
            qualifiers.setdefault(sentence.words[t], t)
        return qualifiers

    def _own_words(self, sentence: Sentence, unit: Unit) -> set[str]:
        """The adjectives of the word's own noun group."""
        k = unit.first
        while k > 0 and unit.first - k < _OWN_REACH and sentence.words[k - 1] not in self._stops:
            k -= 1
        return set(sentence.words[k : unit.first])

    def _inside(self, sentence: Sentence, unit: Unit) -> str | None:
        """The target that the word means in what it is said to be in: a cyst of the kidney."""
        if not unit.term.inside:
            return None
        scope = sentence.words[unit.after : self._scope_end(sentence, unit)]
        where = next((i for i, w in enumerate(scope) if w in self._prepositions), len(scope))
        named = scope[where:]
        return next((target for word, target in unit.term.inside if word in named), None)

    def _is_of_bone(self, sentence: Sentence, unit: Unit) -> bool:
        """Whether the word is told of a bone: a mass in, of or destroying the left 6th rib."""
        words = sentence.words
        group = sentence.at[max(0, unit.first - _OWN_REACH) : unit.first]
        if any((u.term.structure or "").startswith(LUNG) for u in group if u):
            return False
        for i in range(unit.after, self._scope_end(sentence, unit)):
            other = sentence.at[i]
            if words[i] == "," or (other and other.term.kind == "finding"):
                return False
            if words[i] not in self._sites:
                continue
            t = i + 1
            while t < len(words) and self._leads_to_noun(sentence, t):
                t += 1
            if sentence.word(t) in self._places["bone"]:
                return True
        return False

    @staticmethod
    def _leads_to_noun(sentence: Sentence, t: int) -> bool:
        unit = sentence.at[t]
        return sentence.words[t] in ("the", "a", "of") or (
            unit is not None and unit.term.kind in ("side", "zone", "ordinal", "number")
        )

    def _names_lung(self, sentence: Sentence, unit: Unit, own: set[str]) -> bool:
        words = sentence.words
        start = max(0, unit.first - _BACK)
        start = max((i for i in range(start, unit.first) if words[i] == ";"), default=start)
        scope = [*range(start, unit.first), *range(unit.after, self._scope_end(sentence, unit))]
        if not (own | {words[i] for i in scope}).isdisjoint(self._places["lung"]):
            return True
        near = (sentence.at[i] for i in scope)
        return any((u.term.structure or "").startswith(LUNG) for u in near if u)

    def _subject(self, sentence: Sentence, unit: Unit) -> set[str]:
        """The words of what the finding is said to be in: "… in the liver", "Abdomen: …"."""
        words = sentence.words
        end = self._scope_end(sentence, unit)
        inside = next((i for i in range(unit.after, end) if words[i] in self._prepositions), end)
        subject = set(words[inside:end])
        opening = words[: min(unit.first, _BACK)]
        if words[0] in self._prepositions or ":" in opening:
            stop = next((i for i, w in enumerate(opening) if w in (",", ":")), len(opening))
            subject |= set(opening[:stop])
        return subject | {words[0]}

    def _scope_end(self, sentence: Sentence, unit: Unit) -> int:
        limit = min(len(sentence.words), unit.after + _SCOPE)
        return next(
            (i for i in range(unit.after, limit) if sentence.words[i] in self._breaks), limit
        )
