"""Checks that a model's cleaning leaves the meaning of the report as it was.

A cleaned sentence is read by the embedded lexicon and the embedded filter, as its source is, and
as what the embedded cleaner makes of its source. What it states of a target (assertion, side,
zones), the order of sides, every measurement, and every word that is not grammar must come from
one of those two. What the embedded cleaner keeps, the model must keep as well. Denials are compared
apart, since they may belong to no target: "the lungs are not clear". So a model may remove what the
rules would remove (change, comparison, resolution, "no new"), and word the rest in another way.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from storage.records import Assertion, Phrase, Site, SiteKey
from tasks.engines.llm.digest import digest
from tasks.engines.llm.protocols.batched_requests import DOUBTED
from tasks.engines.llm.protocols.embedded import EmbeddedSteps
from tasks.engines.llm.protocols.names import TargetNames
from tasks.engines.llm.protocols.rewriting import rewrite_fault
from tasks.engines.llm.protocols.units import normalize_spaces
from tasks.engines.metering import consume
from tasks.engines.protocols import Failure
from taxonomy.targets import Taxonomy
from taxonomy.words import load_yaml

VERSION = "2"

_POSITIVE: tuple[Assertion, ...] = ("present", "probable")
"""What a report grounds: a sentence that states a finding so is not dropped unasked."""

_NUMBER = r"\d{1,6}(?:[.,]\d{1,6})?"
_MEASUREMENT = re.compile(
    rf"""(?<![\w.]) ({_NUMBER})
         (?= (?:\s?(?:x|×|by|-|to)\s?{_NUMBER}){{0,3}} \s?-?\s? (mm|cm|m|HU|%)(?!\w) )""",
    re.IGNORECASE | re.VERBOSE,
)
"""A number and its unit, which may follow further numbers: "3 x 4 cm" has two."""

_MILLIMETERS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}

_PLACE = re.compile(r"\b(?:left|right|upper|middle|lower)\b", re.IGNORECASE)

_REACH = 120
"""Characters; what is said of a finding farther away is said of another one."""

_SEPARATOR = re.compile(r"[,;:.](?!\d)|\b(?:and|or|with)\b", re.IGNORECASE)
"""What stands between two clauses, or two findings of one."""

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?", re.IGNORECASE)

_SCOPE_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|[.,;:](?!\d)", re.IGNORECASE)
"""A word, or what ends a clause; the point of a number does not."""

_MIN_STEM = 3
"""Letters that two forms of a word have in common at least: "low" and "lower"."""

_MIN_STEM_SHARE = 0.6
"""Of the shorter form: "resolution" and "resolved" share 0.63, "hyperlucent" and "hyperexpanded"
0.45, "decreased" and "decompensated" 0.33."""


class _Statement(NamedTuple):
    """What a text states of a target."""

    target: str
    assertion: Assertion
    side: str | None
    zones: frozenset[str]

    def __str__(self) -> str:
        place = " ".join(filter(None, (self.side, *sorted(self.zones))))
        return f"{f'{place} ' if place else ''}{self.target} ({self.assertion})"


@dataclass(frozen=True)
class _Reading:
    """A text as the embedded steps read it."""

    text: str
    phrases: tuple[Phrase, ...]
    assertions: tuple[Assertion, ...]
    findings: frozenset[str]

    @cached_property
    def statements(self) -> list[_Statement]:
        """Each once, in order."""
        stated = (
            _Statement(p.target, a, p.modifiers.laterality, frozenset(p.modifiers.zones))
            for p, a in zip(self.phrases, self.assertions, strict=True)
        )
        return list(dict.fromkeys(stated))

    @cached_property
    def qualifiers(self) -> set[tuple[str, SiteKey | None]]:
        """Measurements and words of degree, each with the finding next to it: what, and where."""
        found = [(m, _measure(m)) for m in _MEASUREMENT.finditer(self.text)]
        found += [(m, m[0].lower()) for m in _patterns()["degrees"].finditer(self.text)]
        return {(what, self._finding_next_to(match)) for match, what in found}

    @property
    def places(self) -> list[str]:
        """Words of side and level in order; "left more than right" has an opposite."""
        return [match[0].lower() for match in _PLACE.finditer(self.text)]

    @property
    def measurements(self) -> set[str]:
        return {_measure(match) for match in _MEASUREMENT.finditer(self.text)}

    @cached_property
    def _starts(self) -> list[int]:
        return [phrase.start for phrase in self.phrases]

    def _finding_next_to(self, match: re.Match[str]) -> SiteKey | None:
        """The finding with the fewest clauses, then the fewest letters, between it and a match."""
        end = match.end(match.lastindex or 0)  # that of the unit, which the match looks ahead at
        reach = slice(
            bisect_left(self._starts, match.start() - _REACH),
            bisect_right(self._starts, end + _REACH),
        )
        gaps: list[tuple[int, int, int]] = []
        for number, phrase in enumerate(self.phrases[reach], start=reach.start):
            if phrase.target in self.findings:
                after_it = phrase.start >= end
                between = (end, phrase.start) if after_it else (phrase.end, match.start())
                clauses = len(_SEPARATOR.findall(self.text[slice(*between)]))
                gaps.append((clauses, between[1] - between[0], number))
        if not gaps:
            return None
        nearest = self.phrases[min(gaps)[-1]]
        return Site(nearest.target, nearest.modifiers).key


class MeaningCheck:
    """Compares cleaned sentences or texts with their sources."""

    def __init__(self, taxonomy: Taxonomy, embedded: EmbeddedSteps) -> None:
        self._taxonomy = taxonomy
        self._names = TargetNames(taxonomy)
        self._embedded = embedded
        targets = taxonomy.targets.values()
        self._findings = frozenset(t.name for t in targets if t.category == "abnormality")

    def cleaned(self, source: str, answer: str) -> str | Failure:
        """A model's cleaning of a source, "" if it dropped it; or why it cannot be accepted.

        Codes: `drop_doubted`, counted as `drops_doubted`; those of `rewriting.rewrite_fault`;
        `rewrite_changes_assertion`, `rewrite_changes_place`, `rewrite_changes_measurement`,
        `rewrite_adds_words`, `rewrite_loses_target`.
        """
        expected = self._embedded.cleaned(source)
        reference = normalize_spaces(source) if isinstance(expected, Failure) else expected
        if normalize_spaces(answer) == reference:
            return answer  # the embedded cleaner compares its rewriting with the source itself
        if not answer:
            return self._drop_fault(source, reference) or ""
        return rewrite_fault(source, answer, self._names) or (
            self._rewrite_fault(source, reference, answer) or answer
        )

    def _drop_fault(self, source: str, reference: str) -> Failure | None:
        """A drop is doubted if the rules keep a finding of it, or see nothing to remove."""
        left = self._read(reference).statements
        stated = [
            s
            for s in left
            if reference == normalize_spaces(source)
            or (s.target in self._findings and s.assertion in _POSITIVE)
        ]
        if not stated:
            return None
        consume(drops_doubted=1)
        return Failure(DOUBTED, f"“{source}” is dropped, but it states {stated[0]}")

    def _rewrite_fault(self, source: str, reference: str, rewritten: str) -> Failure | None:
        before, kept, after = map(self._read, (source, reference, rewritten))

        def fault(reason: str, what: object) -> Failure:
            return Failure(reason, f"“{rewritten}” {what}, unlike “{source}”")

        sources = before.statements + kept.statements
        for said in after.statements:
            if reason := self._difference(said, sources):
                return fault(reason, f"states {said}")
        for said in kept.statements:
            if reason := self._difference(said, after.statements, is_wider=True):
                lost = "rewrite_loses_target" if reason == "rewrite_adds_target" else reason
                return fault(lost, f"does not state {said}")
        if not any(_is_subsequence(after.places, r.places) for r in (before, kept)):
            return fault("rewrite_changes_place", f"says “{', '.join(after.places)}”")
        if changed := _changed_polarity(source, reference, rewritten):
            return fault("rewrite_changes_assertion", changed)
        if missing := kept.measurements - after.measurements:
            return fault("rewrite_changes_measurement", f"lacks {', '.join(sorted(missing))}")
        if moved := after.qualifiers - before.qualifiers - kept.qualifiers:
            return fault(
                "rewrite_changes_measurement", f"says “{min(moved, key=str)[0]}” of another thing"
            )
        if added := list(self._added_words(before, kept, after)):
            return fault("rewrite_adds_words", f"says “{added[0]}”")
        return None

    def _difference(
        self, said: _Statement, others: Iterable[_Statement], *, is_wider: bool = False
    ) -> str | None:
        """How a statement differs from all others; None if one of them implies it.

        is_wider: whether the others may also name a broader target.
        """
        related = [o for o in others if self._is_related(said.target, o.target, is_wider)]
        if not related:
            return "rewrite_adds_target"
        same = [o for o in related if o.assertion == said.assertion]
        if not same:
            return "rewrite_changes_assertion"
        if not any(said.side in (None, o.side) and said.zones <= o.zones for o in same):
            return "rewrite_changes_place"
        return None

    def _is_related(self, target: str, other: str, is_wider: bool) -> bool:
        """Whether a target is another one, or broader; or narrower where `is_wider`."""
        if target == other or target in self._taxonomy.ancestors(other):
            return True
        return is_wider and other in self._taxonomy.ancestors(target)

    def _added_words(self, before: _Reading, kept: _Reading, after: _Reading) -> Iterator[str]:
        """Words of the rewriting that its sources say in no form; names of their targets aside."""
        said = _said(before.text) | _said(kept.text) | _grammar()
        for match in _WORD.finditer(after.text):
            word = match[0].lower()
            # What the phrases name has been compared already, by whatever name.
            in_phrase = any(p.start <= match.start() < p.end for p in after.phrases)
            if word not in said and not in_phrase and not any(_is_form(word, s) for s in said):
                yield word

    @property
    def digest(self) -> str:
        """Of all that decides what is accepted, the embedded steps included."""
        return digest(VERSION, _words(), self._embedded.digest)

    def _read(self, text: str) -> _Reading:
        phrases = self._embedded.phrases(text)
        assertions = self._embedded.assertions(text, phrases)
        return _Reading(text, tuple(phrases), tuple(assertions), self._findings)


def _changed_polarity(source: str, reference: str, rewritten: str) -> str:
    """How a rewriting denies or doubts other things than its sources; "" if it does not.

    A denial belongs to the words after it, up to the next verb or clause.
    """
    patterns = _patterns()
    if patterns["polarity"].search(reference) and not patterns["polarity"].search(rewritten):
        return "denies and doubts nothing"
    if patterns["doubts"].search(reference) and not patterns["doubts"].search(rewritten):
        return "doubts nothing"
    before, kept, after = map(_denials, (source, reference, rewritten))
    for denied in after:
        if not _is_denied(denied[0], before + kept):
            return f"denies “{denied[0]}”"
    for word in (denied[0] for denied in before + kept):
        # The rules may take a denial out, as that of "has not changed".
        by_rules = word in _said(reference) and not _is_denied(word, kept)
        if word in _said(rewritten) and not _is_denied(word, after) and not by_rules:
            return f"does not deny “{word}”"
    for one, other in _opposites():
        for said, turned in ((one, other), (other, one)):
            is_said = said.search(source) or said.search(reference)
            is_turned = not (turned.search(source) or turned.search(reference))
            if is_said and is_turned and (found := turned.search(rewritten)):
                return f"says “{found[0]}”"
    return ""


def _is_denied(word: str, denials: Iterable[Sequence[str]]) -> bool:
    return any(_is_form(word, denied) for words in denials for denied in words)


def _said(text: str) -> set[str]:
    return {match[0].lower() for match in _WORD.finditer(text)}


def _denials(text: str) -> list[list[str]]:
    """The words that each denial of a text belongs to, in lower case; the first one is next to it.

    A denial without a word after it, as in "the effusion is absent", belongs to those before.
    """
    denials: list[list[str]] = []
    for match in _patterns()["denials"].finditer(text):
        after = _scope(m[0].lower() for m in _SCOPE_TOKEN.finditer(text, match.end()))
        before = [m[0].lower() for m in _SCOPE_TOKEN.finditer(text, 0, match.start())]
        if words := after or _scope(reversed(before)):
            denials.append(words)
    return denials


def _scope(tokens: Iterable[str]) -> list[str]:
    """The words up to the end of a clause or, once there are any, a verb; without grammar."""
    words: list[str] = []
    for word in tokens:
        if word in ".;:" or word in _clause_ends() or (words and word in _verbs()):
            break
        if word not in _grammar() and word != ",":
            words.append(word)
    return words


def _measure(match: re.Match[str]) -> str:
    """A measurement with its unit, lengths in millimeters: "0.5 cm" and "5 mm" are the same."""
    number, unit = float(match[1].replace(",", ".")), match[2].lower()
    if unit in _MILLIMETERS:
        return f"{number * _MILLIMETERS[unit]:g} mm"
    return f"{number:g} {unit}"


def _is_subsequence(words: Sequence[str], of: Iterable[str]) -> bool:
    rest = iter(of)
    return all(word in rest for word in words)


def _is_form(word: str, other: str) -> bool:
    shorter = min(len(word), len(other))
    shared = next((i for i in range(shorter) if word[i] != other[i]), shorter)
    return shared >= _MIN_STEM and shared >= _MIN_STEM_SHARE * shorter


@cache
def _words() -> dict[str, list[str]]:
    raw = load_yaml(Path(__file__).with_suffix(".yaml"))
    return {name: list(map(str, words)) for name, words in raw.items()}


@cache
def _grammar() -> frozenset[str]:
    return frozenset(_words()["grammar"])


@cache
def _clause_ends() -> frozenset[str]:
    return frozenset(_words()["clause_ends"])


@cache
def _verbs() -> frozenset[str]:
    return frozenset(_words()["verbs"])


@cache
def _opposites() -> list[tuple[re.Pattern[str], re.Pattern[str]]]:
    pairs = (pair.split(" / ") for pair in _words()["opposites"])
    return [(_any_of([one]), _any_of([other])) for one, other in pairs]


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {name: _any_of(_words()[name]) for name in ("degrees", "polarity", "denials", "doubts")}


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)
