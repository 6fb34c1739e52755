"""Words of a report, brought to the form in which the taxonomy is written.

Spelling, plurals and compounds are data, in `words.yaml`. Both the taxonomy and the text go
through the same rules, so a rule that makes a non-word ("pancreas" to "pancrea") does no harm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

_TOKEN = re.compile(r"\d+(?:\.\d+)?(?:st|nd|rd|th)?\b|[^\W_]+|[^\w\s]|_", re.IGNORECASE)

_SENTENCE = 1000
"""Characters, at most, of a text whose tokens are kept for the next reader."""

WORD_RULES = Path(__file__).with_suffix(".yaml")

HYPHENS = frozenset("-‐‑–")
STEPPED_OVER = HYPHENS | {"the", "a", "an"}
"""Words and marks that a phrase may have or lack between its other words."""


def load_yaml(path: Path) -> Any:
    """The content of a YAML file, by the fast loader where libyaml is there."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506


@dataclass(frozen=True, slots=True)
class Form:
    """A word in its normal form; `capitals` is set where only capitals tell an abbreviation.

    `head` counts the letters of a first word to which another one is glued ("ofpneumothorax": 2).
    """

    word: str
    capitals: str | None = None
    is_plural: bool = False
    head: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    """The words and marks of a text, in order; token i is `text[starts[i]:ends[i]]`."""

    forms: tuple[Form, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.forms)


@dataclass(frozen=True, slots=True)
class _Rules:
    spelling: tuple[tuple[str, str], ...]
    plurals: dict[str, str]
    singular: frozenset[str]
    capitals: frozenset[str]
    compounds: dict[str, dict[str, str]]
    seconds: frozenset[str]
    heads: tuple[str, ...]
    tails: frozenset[str]


@cache
def _rules() -> _Rules:
    raw = load_yaml(WORD_RULES)
    compounds: dict[str, dict[str, str]] = {}
    for joined, parts in raw["compounds"].items():
        first, second = parts.split()
        compounds.setdefault(first, {})[second] = joined
    return _Rules(
        tuple(raw["spelling"].items()),
        raw["plurals"],
        frozenset(raw["singular"]),
        frozenset(raw["capitals"]),
        compounds,
        frozenset(second for joins in compounds.values() for second in joins),
        tuple(raw["glued"]["heads"]),
        frozenset(raw["glued"]["tails"]),
    )


@lru_cache(maxsize=1 << 16)
def form(raw: str) -> Form:
    """The normal form of one word or mark: lower case, American, singular."""
    spelled = _american(raw.lower())
    word = _singular(spelled)
    letters = raw.removesuffix("s")
    is_short = len(letters) == 2 or letters in _rules().capitals
    capitals = letters if is_short and letters.isupper() else None
    is_plural = word != spelled or (letters != raw and letters.isupper())
    return Form(word, capitals, is_plural, _head(spelled))


def _head(word: str) -> int:
    """The letters of the word to which a finding's word is glued; 0 if there is none."""
    rules = _rules()
    return next(
        (
            len(head)
            for head in rules.heads
            if word.startswith(head) and _singular(word[len(head) :]) in rules.tails
        ),
        0,
    )


def _american(word: str) -> str:
    for british, american in _rules().spelling:
        if british in word:
            word = word.replace(british, american)
    return word


def _singular(word: str) -> str:
    rules = _rules()
    if word in rules.plurals:
        return rules.plurals[word]
    if len(word) < 4 or word[-1] != "s" or word in rules.singular:
        return word
    if word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1]


def tokenize(text: str) -> Tokens:
    """Split a text into words and marks; compounds of `words.yaml` become one token."""
    return _remembered(text) if len(text) <= _SENTENCE else _split(text)


def _split(text: str) -> Tokens:
    forms: list[Form] = []
    starts: list[int] = []
    ends: list[int] = []
    compounds, seconds = _rules().compounds, _rules().seconds
    for match in _TOKEN.finditer(text):
        current = form(match[0])
        if current.head:
            middle = match.start() + current.head
            for start, end in ((match.start(), middle), (middle, match.end())):
                forms.append(form(text[start:end]))
                starts.append(start)
                ends.append(end)
            continue
        first = _before_hyphen(forms) if current.word in seconds else None
        joins = compounds.get(forms[first].word) if first is not None else None
        if first is not None and joins and (joined := joins.get(current.word)):
            del forms[first + 1 :], starts[first + 1 :], ends[first + 1 :]
            forms[first], ends[first] = Form(joined, is_plural=current.is_plural), match.end()
            continue
        forms.append(current)
        starts.append(match.start())
        ends.append(match.end())
    return Tokens(tuple(forms), tuple(starts), tuple(ends))


# A sentence is read by the extractor, by the assertion rules, and by the guard of cleaning.
_remembered = lru_cache(maxsize=1 << 14)(_split)


def phrase_key(phrase: str) -> tuple[str, ...]:
    """The words a phrase is found by; two phrases with one key are the same to a matcher."""
    forms = tokenize(phrase).forms
    return tuple(f.capitals or f.word for f in forms if f.word not in STEPPED_OVER)


def _before_hyphen(forms: list[Form]) -> int | None:
    """Index of the last token, or of the one before it where the last is a hyphen."""
    last = len(forms) - 1
    if last > 0 and forms[last].word in HYPHENS:
        return last - 1
    return last if last >= 0 else None


def ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, … 11th, 12th, 13th."""
    if n % 100 in (11, 12, 13):
        return f"{n}th"
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th') }"
