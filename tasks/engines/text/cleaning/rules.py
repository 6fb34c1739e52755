"""The rules of `rules.yaml`, compiled."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from operator import and_
from pathlib import Path
from typing import Any, Literal

from tasks.engines.text.cleaning.debris import LOST
from tasks.engines.text.cleaning.findings import finding_words, state_words
from tasks.engines.text.cleaning.kept_needs import kept_needs
from tasks.engines.text.cleaning.literals import WordIndex, needs_of, pieces
from taxonomy.targets import Taxonomy
from taxonomy.words import load_yaml

_PACKAGED = Path(__file__).with_name("rules.yaml")

MARK = "¤"
"""Stands in a sentence where a rule took something out; no report has it."""

SWEEPING_MARK = "§¤"
"""The same, where the words of degree before it go too."""

_LOOKS = 1 << 10
"""Sentences kept with what concerns them: several steps of cleaning ask for the same."""

_FRAGMENT = re.compile(r"(?<!\\)\{([a-z]+)\}")
_WORD_RUN = re.compile(r"(\\w|\[\\w-\])\+(?= (?!\?)| \?\))")
"""A run of word characters up to a space: it can be given back in no useful way, so it is made
possessive, and repeats of words and spaces cannot be split in many ways."""


@dataclass(frozen=True)
class Sought:
    """A pattern, and the ways in which it may match.

    source: the pattern as text. It is compiled when it is first tried: all together take seconds,
        and few texts need more than some.
    needs: what a sentence must have for each way, as bits of `Rules.index`.
    ways: what it must have for one of them.
    """

    source: str
    needs: int
    ways: tuple[int, ...]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The pattern, case aside."""
        return re.compile(self.source, re.IGNORECASE)

    def is_in(self, sentence: str, missing: int) -> bool:
        """Whether the pattern is found in a sentence that does not meet `missing`."""
        if self.needs & missing:
            return False
        for way in self.ways:
            if not way & missing:
                return self.pattern.search(sentence) is not None
        return False


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern: drop the sentence or replace what matches, unless a second one is found.

    past: it takes out what is said of another time, which may deny or doubt freely.
    """

    action: Literal["drop", "replace"]
    sought: Sought
    unless: Sought | None = None
    replacement: str = ""
    past: bool = False

    def concerns(self, sentence: str, missing: int) -> bool:
        """Whether the rule is to be applied to a sentence that does not meet `missing`."""
        if not self.sought.is_in(sentence, missing):
            return False
        return self.unless is None or not self.unless.is_in(sentence, missing)

    def applied(self, sentence: str) -> str:
        """The sentence with what matches replaced."""
        return self.sought.pattern.sub(self.replacement, sentence)


@dataclass(frozen=True, slots=True)
class Group:
    """Rules about one thing, tried where a piece of text of `seen` is found, in lower case.

    word: the bit of `Rules.index` for a piece that lies inside a word.
    phrase: the bit for a part of one that does not; these are in `phrases`.
    """

    about: str
    word: int
    phrase: int
    phrases: tuple[str, ...]
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Rules:
    """Everything of `rules.yaml`.

    compares: what is left of a comparison, a message or advice in a cleaned sentence.
    broken: words in a row that are no sentence, by kind.
    unnoted: words that deny or end something; a sentence with one is not cut down to notes.
    takes_back: a sentence that says of the one before it that it is no longer so.
    every_sought: all of these and of the rules.
    index: tells what the words of a sentence meet of what rules and groups need.
    polarity: words by which a sentence denies or doubts; where there are none, it only states.
    digest: of the rules, without the taxonomy's words in them.
    """

    groups: tuple[Group, ...]
    neutral: frozenset[str]
    index: WordIndex
    swept: re.Pattern[str]
    polarity: re.Pattern[str]
    takes_back: Sought
    compares: tuple[Sought, ...]
    broken: tuple[Sought, ...]
    unnoted: Sought
    every_sought: tuple[Sought, ...]
    digest: str

    @cached_property
    def past(self) -> list[Rule]:
        """The rules about what is said of another time."""
        return [rule for group in self.groups for rule in group.rules if rule.past]

    def missing(self, sentence: str) -> int:
        """What a sentence does not meet of all that patterns and groups need; bits of `index`."""
        return self.look(sentence)[0]

    @cached_property
    def look(self) -> Callable[[str], tuple[int, list[Group]]]:
        """What a sentence does not meet, and the groups to try on it; kept for the next asker."""
        return lru_cache(_LOOKS)(self._look)

    def _look(self, sentence: str) -> tuple[int, list[Group]]:
        lowered = sentence.lower()
        missing = self.index.missing(lowered)
        return missing, [
            group
            for group in self.groups
            if not group.word & missing
            or (not group.phrase & missing and any(map(lowered.__contains__, group.phrases)))
        ]


@lru_cache(maxsize=16)
def load_rules(taxonomy: Taxonomy) -> Rules:
    """The packaged rules, with the words by which a taxonomy names findings; read once for each."""
    with kept_needs(_PACKAGED):
        return _load(load_yaml(_PACKAGED), taxonomy)


def _load(raw: Mapping[str, Any], taxonomy: Taxonomy) -> Rules:
    compiler = _Compiler(raw, taxonomy)
    groups = tuple(compiler.group(entry) for entry in raw["groups"])
    degrees = "|".join(map(re.escape, raw["degrees"]))
    swept = re.compile(rf"(?:\b(?:{degrees})\s+)*+{SWEEPING_MARK}", re.IGNORECASE)
    polarity = re.compile(rf"\b(?:{'|'.join(raw['polarity'])})\b", re.IGNORECASE)
    takes_back = compiler.sought(raw["takes back"])
    unnoted = compiler.sought("|".join(raw["unnoted"]))
    compares, broken = (tuple(map(compiler.sought, raw[name])) for name in ("compares", "broken"))
    of_rules = (p for g in groups for r in g.rules for p in (r.sought, r.unless) if p)
    every_sought = (*of_rules, takes_back, unnoted, *compares, *broken)
    return Rules(
        groups=groups,
        neutral=frozenset(raw["neutral"]),
        index=compiler.index,
        swept=swept,
        polarity=polarity,
        takes_back=takes_back,
        compares=compares,
        broken=broken,
        unnoted=unnoted,
        every_sought=every_sought,
        digest=hashlib.sha256(json.dumps([raw, LOST]).encode()).hexdigest(),
    )


class _Compiler:
    """Compiles the patterns of `rules.yaml`, and finds what each needs to match."""

    def __init__(self, raw: Mapping[str, Any], taxonomy: Taxonomy) -> None:
        general = frozenset(raw["general"])
        words = {
            "lesion": finding_words(taxonomy, raw["findings"], general),
            "abnormal": state_words(raw["states"], general),
        }
        self.index = WordIndex()
        self._fragments = raw["fragments"] | {"lost": LOST}
        self._words = {name: rf"\b{pattern}\b" for name, pattern in words.items()}
        # A list of words is one way, and one requirement: any of them.
        self._needed = {name: needs_of(p, {})[0][0] for name, p in words.items()}

    def sought(self, pattern: str) -> Sought:
        """The pattern with all fragments in it, case aside."""
        whole = _filled(pattern, self._fragments | self._words)
        names = {name: rf"\{{{name}\}}" for name in self._words}
        needs = needs_of(_filled(pattern, self._fragments | names), self._needed)
        ways = tuple(map(self.index.add, needs))
        return Sought(_WORD_RUN.sub(r"\1++", whole), reduce(and_, ways), ways)

    def group(self, entry: Mapping[str, Any]) -> Group:
        """A group of `rules.yaml`."""
        seen = [word.lower() for word in entry["seen"]]
        words = frozenset(piece for piece in seen if " " not in piece)
        phrases = tuple(piece for piece in seen if " " in piece)
        parts = frozenset(max(pieces(phrase) or phrase.split(), key=len) for phrase in phrases)
        word, phrase = self.index.add([words]), self.index.add([parts])
        return Group(entry["about"], word, phrase, phrases, tuple(map(self._rule, entry["rules"])))

    def _rule(self, entry: Mapping[str, Any]) -> Rule:
        action: Literal["drop", "replace"] = "replace"
        replacement = entry.get("with", "")
        if "drop" in entry:
            action, pattern = "drop", entry["drop"]
        elif "put" in entry:
            pattern = entry["put"]
        else:
            kind, mark = ("cut", MARK) if "cut" in entry else ("sweep", SWEEPING_MARK)
            pattern, replacement = _whole_words(entry[kind]), f" {mark} "
        unless = entry.get("unless")
        return Rule(
            action,
            self.sought(pattern),
            self.sought(unless) if unless else None,
            replacement,
            entry.get("past", False),
        )


def _whole_words(pattern: str) -> str:
    """A pattern that neither begins nor ends inside a word."""
    start = "" if pattern.startswith((r"\b", "^")) else r"(?:(?<!\w)|(?=\W))"
    return rf"{start}(?:{pattern})(?:(?!\w)|(?<=\W))"


def _filled(pattern: str, fragments: Mapping[str, str]) -> str:
    """The pattern with what stands for each name in braces, and for the names in that."""
    while found := _FRAGMENT.search(pattern):
        pattern = pattern.replace(found[0], fragments[found[1]])
    return pattern
