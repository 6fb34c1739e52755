"""The scope of a cue: where a clause ends, and where a new statement begins.

ConText (Harkema et al. 2009) ends the scope of a cue at a fixed list of words. Reports need more:
a comma or "and" may go on with a negated list ("no effusion, pneumothorax, or mass") or begin a
new statement ("no effusion, mild cardiomegaly"), and only what follows tells which.

Every question about a sentence is answered from arrays that are filled once, and a scope ends at
the next cue of the same meaning, so the cost grows linearly with the length of the sentence.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from tasks.engines.text.assertion.cues import GRADES, Cue, Cues, Meaning
from taxonomy.words import HYPHENS, Tokens

DASHES = HYPHENS | {"—", "―"}
_COORDINATORS = frozenset({",", "and", "with"})
_ALTERNATIVES = frozenset({"or", "nor", "/"})
_ASIDES = frozenset({":", "(", "="})
_SEPARATORS = frozenset({":", "=", "?", ")"})
_LINKS = frozenset({"the", "a", "an", "any", "and", "with"})
_PREPOSITIONS = frozenset({"of", "for", "to", "with"})
_DENIAL = Cue("absent", finding="before")
_DEFINITE = frozenset({"the", "this", "that", "these", "those"})
_ADJECTIVES = 3
"""Words, at most, between a determiner and the finding that it belongs to."""
_UNKNOWN_ITEM = 3
"""Words, at most, of a list item that names no known finding ("masses, cysts, cavities")."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A phrase in a sentence: first token, token after the last, and whether it is anatomy."""

    first: int
    after: int
    is_anatomy: bool


@dataclass(frozen=True, slots=True)
class FoundCue:
    """A cue phrase in a sentence; it may carry several cues."""

    first: int
    after: int
    cues: tuple[Cue, ...]


def _line_starts(sentence: str, tokens: Tokens) -> set[int]:
    """Tokens that begin a line, but for the first."""
    if "\n" not in sentence:
        return set()
    ends = (i for i, character in enumerate(sentence) if character == "\n")
    return {bisect_left(tokens.starts, end) for end in ends} - {0, len(tokens)}


class Clauses:
    """The words of one sentence with its mentions and cues; indices are tokens."""

    def __init__(
        self, sentence: str, tokens: Tokens, mentions: Sequence[Mention], vocabulary: Cues
    ) -> None:
        self.words = [form.word for form in tokens.forms]
        self._vocabulary = vocabulary
        self._line_starts = _line_starts(sentence, tokens)
        self._mentioned = {i for m in mentions for i in range(m.first, m.after)}
        self._mention_starts = {m.first for m in mentions}
        verbs = vocabulary.verbs
        self._finding_starts = {
            m.first
            for m in mentions
            if not m.is_anatomy and verbs.isdisjoint(self.words[m.first : m.after])
        }
        self._findings = {m.after - 1 for m in mentions if not m.is_anatomy and m.after > m.first}
        self.cues = self._find_cues(tokens)
        self._stopping = self._stops(tokens) if self.cues else set[int]()
        self._against: dict[Meaning, list[int]] = {}
        self._alike: dict[Meaning, tuple[list[int], list[int]]] = {}

    # Few sentences need every array, so each is filled when it is first asked for.

    @cached_property
    def _findings_before(self) -> list[int]:
        return self._counted(self._findings)

    @cached_property
    def _next_word(self) -> list[int]:
        return self._following(lambda i: self.words[i][0].isalnum())

    @cached_property
    def _next_alternative(self) -> list[int]:
        return self._following(lambda i: self.words[i] in _ALTERNATIVES)

    @cached_property
    def _next_close(self) -> list[int]:
        return self._following(lambda i: i in self._stopping or self.words[i] in _ASIDES)

    @cached_property
    def _previous_stop(self) -> list[int]:
        return self._preceding(self._stopping.__contains__)

    @cached_property
    def _part_end(self) -> list[int]:
        return self._following(lambda i: i in self._stopping or self.words[i] == ",")

    @cached_property
    def _part_start(self) -> list[int]:
        return self._preceding(lambda i: i in self._stopping or self.words[i] == ",")

    @cached_property
    def _next_unlinked(self) -> list[int]:
        return self._following(lambda i: self.words[i] not in _LINKS)

    @cached_property
    def _commas(self) -> list[int]:
        return self._counted({i for i, word in enumerate(self.words) if word == ","})

    @cached_property
    def _verbs(self) -> set[int]:
        candidates = self._vocabulary.verbs | self._vocabulary.changes
        return {i for i, word in enumerate(self.words) if word in candidates and self._is_verb(i)}

    @cached_property
    def _verb_forms(self) -> list[int]:
        verbs = self._vocabulary.verbs
        forms = {i for i, word in enumerate(self.words) if word in verbs}
        return self._counted(forms - self._mentioned)

    def has_words(self, start: int, end: int) -> bool:
        """Whether a word, not only marks, stands in tokens start to end, half-open."""
        return self._next_word[start] < end

    def is_presupposed(self, mention: Mention) -> bool:
        """Whether a finding is one that another is inside of: "no cavity within the mass"."""
        for i in range(mention.first - 1, max(mention.first - _ADJECTIVES - 2, 0), -1):
            if self.words[i] in _DEFINITE:
                return self.words[i - 1] in self._vocabulary.insides
            if not self.words[i][0].isalnum():
                return False
        return False

    def has_alternatives(self, start: int, end: int) -> bool:
        """Whether tokens start to end, half-open, name several explanations: "scar or edema"."""
        return self._next_alternative[start] < end

    def ends_clause(self, i: int) -> bool:
        """Whether nothing but the clause's end, or a place or reason, follows from token i on."""
        return (
            i >= len(self.words)
            or i in self._stopping
            or not self.words[i][0].isalnum()
            or self.words[i] in _ALTERNATIVES | _COORDINATORS
            or self.words[i] in self._vocabulary.adjuncts
        )

    def next_cue(self, found: FoundCue, meaning: Meaning) -> int:
        """The first token of the next cue of the meaning; the sentence's end without one."""
        return self._cues_of(meaning)[0][found.first]

    def forward(self, found: FoundCue, cue: Cue) -> int:
        """The token at which the scope of a cue ends that lies behind it."""
        start = found.after
        if start >= len(self.words):
            return start
        if cue.scope == "sentence":
            after = start + (self.words[start] in _ASIDES)
            return self._next_close[after] if after < len(self.words) else after
        end = min(self.next_cue(found, cue.meaning), len(self.words))
        sequels = self._vocabulary.sequels if cue.meaning == "absent" else frozenset[str]()
        for i in range(start, end):
            if i in self._stopping or (self.words[i] in _ASIDES and i > start):
                return i
            if self.words[i] in sequels and self._names_finding(start, i):
                return i
            if self.words[i] in _COORDINATORS and self._ends_at(i, found, cue):
                return i
        return end

    def backward(self, found: FoundCue, cue: Cue) -> int:
        """The last token before a cue that lies outside its scope; -1 for none.

        A verb ends the scope, but for one of a clause inside it ("consolidation that may be
        pneumonia is not seen"). A comma does, unless it is the cue's own, an "or" tells of a
        list, or what stands before it is an item of a bare list ("effusion, mass were not seen").
        """
        before = found.first
        if cue.scope == "sentence":
            return self._previous_stop[before]
        limit = self._cues_of(cue.meaning)[1][before]
        own_comma = before if cue.scope == "nearest" else before - 1
        listed, depth, separated = False, 0, False
        for i in range(before - 1, limit, -1):
            word = self.words[i]
            if i in self._stopping:
                return i
            if i in self._verbs and i < before - 1 and self.words[i - 1] != "that":
                return i
            depth += (word == ")") - (word == "(")
            if depth < 0:
                return i
            if word in (":", "="):
                if separated or self._names_finding(i, before):
                    return i
                separated = True
            if word == "," and i < own_comma and not (listed or self._items[i]):
                return i
            listed = listed or word in _ALTERNATIVES
        return limit

    def _names_finding(self, start: int, end: int) -> bool:
        return self._findings_before[end] > self._findings_before[start]

    def _ends_at(self, i: int, found: FoundCue, cue: Cue) -> bool:
        """Whether a comma, "and" or "with" at token i ends the scope of a cue."""
        if cue.scope == "nearest":
            return True
        if i == found.after:
            # "Effusion absent, cardiomegaly" is two statements; "Possibly, effusion" is one.
            own_part = self._part_start[found.first] + 1
            return self.words[i] == "," and self._names_finding(own_part, found.first)
        if self._list_goes_on[i] or self._repeats_preposition(i, found):
            return False
        if self._begins_statement(i, cue.meaning) or self._follows_statement(i, found.after):
            return True
        if cue.meaning == "absent":
            return self._is_fresh(i)
        return self._ends_hedge(i, found.after)

    def _repeats_preposition(self, i: int, found: FoundCue) -> bool:
        """Whether the cue's own preposition follows token i: "absence of edema and of effusion"."""
        last = self.words[found.after - 1]
        return last in _PREPOSITIONS and self.words[i + 1 : i + 2] == [last]

    def _begins_statement(self, i: int, meaning: Meaning) -> bool:
        """Whether a verb or a cue of another meaning makes the part after token i one."""
        if i + 1 >= len(self.words):
            return False
        before = self._counted_against(meaning)
        return before[self._part_end[i + 1]] > before[i + 1]

    def _follows_statement(self, i: int, start: int) -> bool:
        """Whether a verb stands on both sides: "no effusion is seen, edema is present"."""
        verbs = self._verb_forms
        if i + 1 >= len(self.words) or verbs[i] == verbs[start]:
            return False
        return verbs[self._part_end[i + 1]] > verbs[i + 1]

    def _ends_hedge(self, i: int, start: int) -> bool:
        """A hedge goes over "and", over "with" to its first finding, over commas inside a list."""
        if self.words[i] == "with":
            return self._findings_before[i] > self._findings_before[start]
        if self._is_fresh(i):
            return True
        if self.words[i] == "and":
            return False
        if self.words[i + 1 : i + 2] == ["and"]:
            return self._commas[i] == self._commas[start]
        return self._mention_starts.isdisjoint((i + 1, i + 2))

    def _is_fresh(self, i: int) -> bool:
        """Whether the first word after token i and links is one that begins a statement."""
        if self.words[i] not in _COORDINATORS:
            return False
        first = self._next_unlinked[i + 1]
        if first == len(self.words) or first in self._stopping:
            return False
        if self.words[first] in self._vocabulary.fresh_structures:
            return self.words[i] != "and" or first not in self._finding_starts
        return self.words[first] in self._vocabulary.fresh

    @cached_property
    def _list_goes_on(self) -> list[bool]:
        """For each token, whether an "or" further on tells that a list goes on over it."""
        runs = [False] * len(self.words)
        for i in range(len(self.words) - 1, 0, -1):
            runs[i - 1] = i not in self._stopping and i not in self._verbs
            runs[i - 1] = runs[i - 1] and (self.words[i] in _ALTERNATIVES or runs[i])
        return runs

    @cached_property
    def _items(self) -> list[bool]:
        """For each comma, whether a bare item of a list stands before it."""
        items = [False] * len(self.words)
        cued = {i for cue in self.cues for i in range(cue.first, cue.after)}
        vocabulary = self._vocabulary
        no_item = vocabulary.verbs | vocabulary.predicates | vocabulary.adjuncts | {"+"}
        fresh = vocabulary.fresh | vocabulary.fresh_structures
        start = 0
        bare = True
        for i, word in enumerate(self.words):
            if word == ",":
                is_known = self._names_finding(start, i)
                opens = self.words[start] in fresh and start not in self._mentioned
                items[i] = bare and not opens and (is_known or i - start <= _UNKNOWN_ITEM)
            if word in (",", ":", "=", "(") or i in self._stopping:
                start, bare = i + 1, True
            elif i in cued or word in no_item:
                bare = False
        return items

    def _find_cues(self, tokens: Tokens) -> list[FoundCue]:
        """The cues in order; "no" is another one as the answer to a finding: "Effusion: no"."""
        answers = set[int]()
        if not self._vocabulary.denials.isdisjoint(self.words):
            answers = {i for i in range(1, len(self.words)) if self._is_denial(i)}
        found = [
            self._without_finding(FoundCue(*f), tokens) for f in self._vocabulary.tree.find(tokens)
        ]
        cues = [cue for cue in found if answers.isdisjoint(range(cue.first, cue.after))]
        # The scope of "(none)" begins before the bracket.
        cues += [FoundCue(i - (self.words[i - 1] == "("), i + 1, (_DENIAL,)) for i in answers]
        return sorted(cues, key=lambda cue: cue.first)

    def _without_finding(self, found: FoundCue, tokens: Tokens) -> FoundCue:
        """A cue that hides a shorter one, cut before a finding: "no enlargement" of the heart."""
        if found.cues[0].meaning != "nothing" or self._mentioned.isdisjoint(
            range(found.first, found.after)
        ):
            return found
        end = next(i for i in range(found.first, found.after) if i in self._mentioned)
        shorter = Tokens(tokens.forms[:end], tokens.starts[:end], tokens.ends[:end])
        cue = self._vocabulary.tree.longest(shorter, found.first)
        return FoundCue(found.first, *cue) if cue else found

    def _is_denial(self, i: int) -> bool:
        """Whether token i alone answers what stands before a mark: "Effusion: no, edema = n"."""
        if self.words[i] not in self._vocabulary.denials:
            return False
        mark = self.words[i - 1]
        is_set_off = mark in _SEPARATORS | DASHES or (mark == "." and self.words[i - 2] == ".")
        is_set_off |= mark == "(" and self.words[i + 1 : i + 2] == [")"]
        return is_set_off and self.ends_clause_plainly(i + 1)

    def _stops(self, tokens: Tokens) -> set[int]:
        """Tokens that end every scope: stop words, dashes between spaces, starts of answer lines.

        A dash before the whole of a denial does not: "Effusion - not seen".
        """
        denials = {
            cue.first
            for cue in self.cues
            for c in cue.cues
            if c.meaning in GRADES
            and (
                self.ends_clause_plainly(cue.after)
                or (
                    c.finding in ("before", "either")
                    and self.words[cue.after] in self._vocabulary.adjuncts
                )
            )
        }
        stops = {c.first for c in self.cues if c.cues[0].meaning in ("stop", "stated")}
        stops -= {i for i in stops if self.words[i] == "." and "." in self._beside(i)}
        if DASHES.isdisjoint(self.words):
            return stops | self._answer_lines()
        is_dash = [word in DASHES for word in self.words]
        following = self._following(lambda i: not is_dash[i])
        for i in range(1, len(self.words) - 1):
            if not is_dash[i] or following[i] in denials:
                continue
            spaced = tokens.ends[i - 1] < tokens.starts[i] and tokens.ends[i] < tokens.starts[i + 1]
            if spaced or is_dash[i - 1] or is_dash[i + 1]:
                stops.add(i)
        return stops | self._answer_lines()

    def _answer_lines(self) -> set[int]:
        """First tokens of lines with a finding and its answer that follow another such line."""
        if not self._line_starts:
            return set()
        starts = sorted(self._line_starts)
        edges = [0, *starts, len(self.words)]
        is_answer = [
            any(self.words[i] in (":", "=") for i in range(first, after))
            for first, after in pairwise(edges)
        ]
        return {
            start
            for start, (before, this) in zip(starts, pairwise(is_answer), strict=True)
            if before and this
        }

    def ends_clause_plainly(self, i: int) -> bool:
        """Whether the clause ends at token i."""
        return (
            i >= len(self.words)
            or i in self._line_starts
            or self.words[i] in (",", ";", ".", ")", *DASHES)
        )

    def _beside(self, i: int) -> list[str]:
        return self.words[max(i - 1, 0) : i] + self.words[i + 1 : i + 2]

    def _is_verb(self, i: int) -> bool:
        """Whether token i is a verb with its own subject, and not one a list shares."""
        word = self.words[i]
        if i in self._mentioned:
            return False
        if word in self._vocabulary.changes:
            behind = self.words[i - 1] if i else ","
            is_predicate = behind[0].isalnum() and behind not in _LINKS | _ALTERNATIVES
            return is_predicate and self.ends_clause(i + 1)
        if word not in self._vocabulary.verbs:
            return False
        return self._vocabulary.shared.isdisjoint(self.words[i + 1 : i + 3])

    def _counted_against(self, meaning: Meaning) -> list[int]:
        """Before each token, how many verbs and cues of another meaning stand."""
        if meaning not in self._against:
            contrary = {
                cue.first
                for cue in self.cues
                if any(c.meaning in GRADES and c.meaning != meaning for c in cue.cues)
            }
            self._against[meaning] = self._counted(self._verbs | contrary)
        return self._against[meaning]

    def _following(self, holds: Callable[[int], bool]) -> list[int]:
        """For each token, the first from it on that holds; the number of tokens without one."""
        following = [len(self.words)] * (len(self.words) + 1)
        for i in range(len(self.words) - 1, -1, -1):
            following[i] = i if holds(i) else following[i + 1]
        return following

    def _preceding(self, holds: Callable[[int], bool]) -> list[int]:
        """For each token and the end, the last before it that holds; -1 without one."""
        preceding = [-1] * (len(self.words) + 1)
        for i in range(len(self.words)):
            preceding[i + 1] = i if holds(i) else preceding[i]
        return preceding

    def _counted(self, places: set[int]) -> list[int]:
        """For each token and the end, how many of the places lie before it."""
        return [0, *accumulate(int(i in places) for i in range(len(self.words)))]

    def _cues_of(self, meaning: Meaning) -> tuple[list[int], list[int]]:
        """For each token, the next cue of a meaning behind it, and the last token of one before."""
        if meaning not in self._alike:
            alike = [cue for cue in self.cues if any(c.meaning == meaning for c in cue.cues)]
            starts = {cue.first for cue in alike}
            ends = {cue.after - 1 for cue in alike}
            following = self._following(starts.__contains__)
            self._alike[meaning] = following[1:], self._preceding(ends.__contains__)
        return self._alike[meaning]
