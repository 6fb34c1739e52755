"""The rules of `rules.yaml`, compiled."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

MARK = "¤"
"""Stands in a sentence where a rule took something out; no report has it."""

SWEEPING_MARK = "§¤"
"""The same, where the words of degree before it go too."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FRAGMENT = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern: drop the sentence unless a second one is found, or replace what matches.

    `sweep` is a replacement that takes the words of degree before it along.
    """

    action: Literal["drop", "replace"]
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None = None
    replacement: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Rules about one thing, tried where one of the lower-case words of `seen` is found."""

    about: str
    seen: tuple[str, ...]
    rules: tuple[Rule, ...]

    def concerns(self, lowered: str) -> bool:
        """Whether a sentence in lower case has a word of `seen`; a plain loop, as it is hot."""
        for word in self.seen:  # noqa: SIM110
            if word in lowered:
                return True
        return False


@dataclass(frozen=True)
class Rules:
    """Everything of `rules.yaml`."""

    groups: tuple[Group, ...]
    neutral: frozenset[str]
    swept: re.Pattern[str]
    digest: str


@cache
def load_rules() -> Rules:
    """The packaged rules, read once."""
    content = Path(__file__).with_name("rules.yaml").read_bytes()
    raw = yaml.load(content, _Loader)  # noqa: S506
    groups = tuple(_group(entry, raw["fragments"]) for entry in raw["groups"])
    degrees = "|".join(map(re.escape, raw["degrees"]))
    swept = re.compile(rf"(?:\b(?:{degrees})\s+)*{SWEEPING_MARK}", re.IGNORECASE)
    return Rules(groups, frozenset(raw["neutral"]), swept, hashlib.sha256(content).hexdigest())


def _group(entry: Mapping[str, Any], fragments: Mapping[str, str]) -> Group:
    seen = tuple(word.lower() for word in entry["seen"])
    return Group(entry["about"], seen, tuple(_rule(rule, fragments) for rule in entry["rules"]))


def _rule(entry: Mapping[str, str], fragments: Mapping[str, str]) -> Rule:
    if "drop" in entry:
        unless = _compiled(entry["unless"], fragments) if "unless" in entry else None
        return Rule("drop", _compiled(entry["drop"], fragments), unless)
    for action, mark in (("cut", MARK), ("sweep", SWEEPING_MARK)):
        if action in entry:
            whole = _whole_words(entry[action])
            return Rule("replace", _compiled(whole, fragments), replacement=f" {mark} ")
    return Rule("replace", _compiled(entry["put"], fragments), replacement=entry["with"])


def _whole_words(pattern: str) -> str:
    """A pattern that neither begins nor ends inside a word."""
    start = "" if pattern.startswith((r"\b", "^")) else r"(?:(?<!\w)|(?=\W))"
    return rf"{start}(?:{pattern})(?:(?!\w)|(?<=\W))"


def _compiled(pattern: str, fragments: Mapping[str, str]) -> re.Pattern[str]:
    while found := _FRAGMENT.search(pattern):
        pattern = pattern.replace(found[0], fragments[found[1]])
    return re.compile(pattern, re.IGNORECASE)
