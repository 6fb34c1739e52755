"""Which findings of a sentence each of its cues speaks of, and what that makes of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from storage.records import Assertion
from tasks.engines.text.assertion.cues import GRADES, MEANINGS, Cue, Cues, Meaning
from tasks.engines.text.assertion.scope import Clauses, FoundCue, Mention
from taxonomy.words import HYPHENS

_ARTICLES = frozenset({"the", "a", "an"})


class Statements:
    """What the cues of a sentence say of its mentions, which are in order.

    What is said of a run of findings is noted at its two ends alone, so that a cue costs the same
    however many findings are in its scope.
    """

    def __init__(self, clauses: Clauses, mentions: Sequence[Mention], vocabulary: Cues) -> None:
        self._clauses = clauses
        self._mentions = mentions
        self._vocabulary = vocabulary
        self._starts = [m.first for m in mentions]
        findings = [m for m in mentions if not m.is_anatomy]
        self._firsts = [m.first for m in findings]
        self._afters = list(accumulate((m.after for m in findings), max))
        self._changes: dict[Meaning, list[int]] = {}
        self._missing: set[int] = set()
        for found in clauses.cues:
            for cue in found.cues:
                if cue.meaning in MEANINGS:
                    self._add(found, cue)

    def assertions(self) -> list[Assertion]:
        """One per mention, order kept; a finding that is stated is there, whatever else is said."""
        said = {meaning: list(accumulate(changes)) for meaning, changes in self._changes.items()}
        of_findings: list[Assertion] = ["present"] * len(self._firsts)
        for grade in (grade for grade in GRADES if grade in said):
            of_findings = [
                grade if n else a for n, a in zip(said[grade], of_findings, strict=False)
            ]
        if "stated" in said:
            stated = said["stated"]
            of_findings = ["present" if n else a for n, a in zip(stated, of_findings, strict=False)]
        if any(grade == "absent" for grade in of_findings):
            findings = (m for m in self._mentions if not m.is_anatomy)
            of_findings = [
                "present" if a == "absent" and self._clauses.is_presupposed(m) else a
                for m, a in zip(findings, of_findings, strict=True)
            ]
        following = iter(of_findings)
        return [
            ("absent" if i in self._missing else "present") if m.is_anatomy else next(following)
            for i, m in enumerate(self._mentions)
        ]

    def _add(self, found: FoundCue, cue: Cue) -> None:
        first, last = self._scope(found, cue)
        if cue.alternatives and self._clauses.has_alternatives(found.after, last):
            cue = replace(cue, meaning=cue.alternatives)
        if cue.about == "anatomy":
            self._missing.update(self._missing_structures(found, first, last))
            return
        behind = bisect_right(self._afters, first), bisect_right(self._afters, found.first)
        ahead = bisect_left(self._firsts, found.after), bisect_left(self._firsts, last)
        if cue.scope == "nearest":
            behind = max(behind[0], behind[1] - 1), behind[1]
            ahead = ahead[0], min(ahead[1], ahead[0] + 1)
        for start, end in (behind, (behind[1], ahead[0]), ahead):
            if start < end:
                changes = self._changes.setdefault(cue.meaning, [0] * (len(self._firsts) + 1))
                changes[start] += 1
                changes[end] -= 1

    def _scope(self, found: FoundCue, cue: Cue) -> tuple[int, int]:
        """The last token before the scope of a cue, and the first behind it.

        A cue with nothing on its side looks to the other: "Pneumothorax: none", "Not seen:
        effusion". One that may look either way looks back where the clause ends behind it:
        "pneumonia is likely", but "the opacities are likely effusions".
        """
        clauses = self._clauses
        first, last = found.first, found.after
        ends = clauses.ends_clause(found.after)
        opens = not clauses.has_words(0, found.first) or self._introduces(found)
        if cue.finding in ("after", "around") or (opens if cue.finding == "before" else not ends):
            last = clauses.forward(found, cue)
        if cue.finding == "either":
            looks_back = ends
        elif cue.finding == "after":
            looks_back = not self._has_object(found, cue, last)
        else:
            looks_back = True
        if looks_back:
            first = clauses.backward(found, cue)
        return first, last

    def _introduces(self, found: FoundCue) -> bool:
        """Whether a list follows a cue with no finding before it: "These are not seen: …"."""
        words = self._clauses.words
        is_colon = found.after < len(words) and words[found.after] == ":"
        return is_colon and bisect_left(self._firsts, found.first) == 0

    def _has_object(self, found: FoundCue, cue: Cue, last: int) -> bool:
        """Whether a cue has something ahead to speak of, be it no finding that we know.

        A place is no object of a hedge: "effusion possible on the right".
        """
        clauses = self._clauses
        if not clauses.has_words(found.after, last):
            return last == clauses.next_cue(found, cue.meaning) < len(clauses.words)
        if cue.meaning == "absent" or clauses.words[found.after] not in self._vocabulary.adjuncts:
            return True
        return bisect_left(self._firsts, found.after) < bisect_left(self._firsts, last)

    def _missing_structures(self, found: FoundCue, first: int, last: int) -> Iterator[int]:
        """Indices of the structures that a cue says are not there."""
        ahead = bisect_left(self._starts, found.first)
        for i in range(ahead, len(self._mentions)):
            mention = self._mentions[i]
            if mention.first >= found.after:
                if mention.first < last and mention.is_anatomy:
                    yield i
                break
            if mention.is_anatomy:
                yield i
        for i in range(ahead - 1, -1, -1):
            mention = self._mentions[i]
            if mention.after <= first or not mention.is_anatomy:
                break
            if not self._is_place(mention):
                yield i

    def _is_place(self, mention: Mention) -> bool:
        """Whether a preposition makes a structure the place of a finding."""
        words = self._clauses.words
        before = mention.first - 1
        while before >= 0 and words[before] in _ARTICLES | HYPHENS:
            before -= 1
        return before >= 0 and words[before] in self._vocabulary.places
