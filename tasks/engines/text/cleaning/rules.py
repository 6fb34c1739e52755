"""The rules of `rules.yaml`, compiled."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from tasks.engines.text.cleaning.debris import LOST
from tasks.engines.text.cleaning.findings import any_of, finding_words, state_words
from tasks.engines.text.cleaning.literals import has_any, needed_literals
from taxonomy.targets import Taxonomy
from taxonomy.words import load_yaml

MARK = "¤"
"""Stands in a sentence where a rule took something out; no report has it."""

SWEEPING_MARK = "§¤"
"""The same, where the words of degree before it go too."""

_FRAGMENT = re.compile(r"\{([a-z]+)\}")
_WORD_RUN = re.compile(r"(\\w|\[\\w-\])\+(?= (?!\?)| \?\))")
"""A run of word characters up to a space: it can be given back in no useful way, so it is made
possessive, and repeats of words and spaces cannot be split in many ways."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern: drop the sentence or replace what matches, unless a second one is found.

    past: it takes out what is said of another time, which may deny or doubt freely.
    needs: lower-case pieces of text without which the pattern is not found; none for any text.
    """

    action: Literal["drop", "replace"]
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None = None
    replacement: str = ""
    past: bool = False
    needs: tuple[str, ...] = ()

    def concerns(self, lowered: str) -> bool:
        """Whether a sentence in lower case may match."""
        return not self.needs or has_any(lowered, self.needs)


@dataclass(frozen=True, slots=True)
class Sought:
    """A pattern that is only looked for, and pieces of text as in a `Rule`."""

    pattern: re.Pattern[str]
    needs: tuple[str, ...]

    def search(self, sentence: str) -> re.Match[str] | None:
        """Where the pattern is found first."""
        if self.needs and not has_any(sentence.lower(), self.needs):
            return None
        return self.pattern.search(sentence)


@dataclass(frozen=True, slots=True)
class Group:
    """Rules about one thing, tried where one of the lower-case words of `seen` is found."""

    about: str
    seen: tuple[str, ...]
    rules: tuple[Rule, ...]

    def concerns(self, lowered: str) -> bool:
        """Whether a sentence in lower case has a word of `seen`."""
        return has_any(lowered, self.seen)


@dataclass(frozen=True)
class Rules:
    """Everything of `rules.yaml`.

    compares: what is left of a comparison, a message or advice in a cleaned sentence.
    broken: words in a row that are no sentence, by kind.
    unnoted: words that deny or end something; a sentence with one is not cut down to notes.
    takes_back: a sentence that says of the one before it that it is no longer so.
    seen: any word of any group's `seen`, in lower case.
    polarity: words by which a sentence denies or doubts; where there are none, it only states.
    digest: of the rules, without the taxonomy's words in them.
    """

    groups: tuple[Group, ...]
    neutral: frozenset[str]
    seen: re.Pattern[str]
    swept: re.Pattern[str]
    polarity: re.Pattern[str]
    takes_back: re.Pattern[str]
    compares: tuple[Sought, ...]
    broken: tuple[Sought, ...]
    unnoted: re.Pattern[str]
    digest: str

    @property
    def past(self) -> list[Rule]:
        """The rules about what is said of another time."""
        return [rule for group in self.groups for rule in group.rules if rule.past]


@lru_cache(maxsize=16)
def load_rules(taxonomy: Taxonomy) -> Rules:
    """The packaged rules, with the words by which a taxonomy names findings; read once for each."""
    raw = load_yaml(Path(__file__).with_name("rules.yaml"))
    general = frozenset(raw["general"])
    fragments = raw["fragments"] | {
        "lesion": rf"\b{finding_words(taxonomy, raw['findings'], general)}\b",
        "abnormal": rf"\b{state_words(raw['states'], general)}\b",
        "lost": LOST,
    }
    groups = tuple(_group(entry, fragments) for entry in raw["groups"])
    degrees = "|".join(map(re.escape, raw["degrees"]))
    swept = re.compile(rf"(?:\b(?:{degrees})\s+)*+{SWEEPING_MARK}", re.IGNORECASE)
    polarity = re.compile(rf"\b(?:{'|'.join(raw['polarity'])})\b", re.IGNORECASE)
    takes_back = _compiled(raw["takes back"], fragments)
    unnoted = _compiled("|".join(raw["unnoted"]), fragments)
    compares, broken = (_sought(raw[name], fragments) for name in ("compares", "broken"))
    digest = hashlib.sha256(json.dumps([raw, LOST]).encode()).hexdigest()
    seen = re.compile(any_of(word for group in groups for word in group.seen))
    neutral = frozenset(raw["neutral"])
    return Rules(
        groups, neutral, seen, swept, polarity, takes_back, compares, broken, unnoted, digest
    )


def _group(entry: Mapping[str, Any], fragments: Mapping[str, str]) -> Group:
    seen = tuple(word.lower() for word in entry["seen"])
    return Group(entry["about"], seen, tuple(_rule(rule, fragments) for rule in entry["rules"]))


def _rule(entry: Mapping[str, Any], fragments: Mapping[str, str]) -> Rule:
    unless = _compiled(entry["unless"], fragments) if "unless" in entry else None
    if "drop" in entry:
        pattern = _compiled(entry["drop"], fragments)
        return Rule("drop", pattern, unless, needs=needed_literals(pattern.pattern))
    replacement = entry.get("with", "")
    for action, mark in (("cut", MARK), ("sweep", SWEEPING_MARK)):
        if action in entry:
            pattern, replacement = _compiled(_whole_words(entry[action]), fragments), f" {mark} "
            break
    else:
        pattern = _compiled(entry["put"], fragments)
    past, needs = entry.get("past", False), needed_literals(pattern.pattern)
    return Rule("replace", pattern, unless, replacement, past, needs)


def _sought(patterns: Sequence[str], fragments: Mapping[str, str]) -> tuple[Sought, ...]:
    compiled = [_compiled(pattern, fragments) for pattern in patterns]
    return tuple(Sought(pattern, needed_literals(pattern.pattern)) for pattern in compiled)


def _whole_words(pattern: str) -> str:
    """A pattern that neither begins nor ends inside a word."""
    start = "" if pattern.startswith((r"\b", "^")) else r"(?:(?<!\w)|(?=\W))"
    return rf"{start}(?:{pattern})(?:(?!\w)|(?<=\W))"


def _compiled(pattern: str, fragments: Mapping[str, str]) -> re.Pattern[str]:
    while found := _FRAGMENT.search(pattern):
        pattern = pattern.replace(found[0], fragments[found[1]])
    return re.compile(_WORD_RUN.sub(r"\1++", pattern), re.IGNORECASE)
