"""Words that name a finding, from the taxonomy and the vocabulary, as parts of a pattern.

Cleaning asks of many a sentence whether it names a finding. Which words do, the taxonomy tells;
a target added there is known here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from taxonomy.targets import Taxonomy
from taxonomy.words import WORD_RULES, load_yaml

_VOCABULARY = Path(__file__).parents[1] / "lexicon" / "vocabulary.yaml"
_ORDINARY_HEADS = 3
"""A head word of fewer letters is an abbreviation, which only its capitals tell."""


def finding_words(taxonomy: Taxonomy, more: Collection[str], general: Collection[str]) -> str:
    """A pattern of the words that name a finding, singular or plural: "effusions?|edema|…".

    It is the last word of every abnormality's name and synonyms ("effusion" of "pleural
    effusion"), or the whole name where that word is one of `general` ("airspace disease"), the
    nouns that the vocabulary has for states of structures ("enlargement"), and `more`.
    """
    words = set(more)
    for target in taxonomy.targets.values():
        if target.category == "abnormality":
            words |= {_head(name, general) for name in (target.name, *target.synonyms)}
    words |= {noun for entry in _predicates() for noun in entry.get("nouns", ())}
    return _alternatives(words - set(general))


def state_words(more: Collection[str], general: Collection[str]) -> str:
    """A pattern of the words by which a structure is called abnormal: "enlarged|tortuous|…".

    It is the states of the vocabulary and `more`, without those in `general`.
    """
    states = {word for entry in _predicates() for word in entry.get("states", ())}
    return _alternatives(states.union(more).difference(general), plurals=False)


def _predicates() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = load_yaml(_VOCABULARY).get("predicates", [])
    return found


def _head(name: str, general: Collection[str]) -> str:
    head = name.rsplit(" ", 1)[-1]
    return name if head in general else head


def _alternatives(words: Iterable[str], *, plurals: bool = True) -> str:
    forms = {f for word in words for f in (_forms(word) if plurals else (word,))}
    return any_of(spelled.lower() for form in forms for spelled in _spellings(form))


def any_of(words: Iterable[str]) -> str:
    """A pattern of the words given, by a tree of letters; quicker than one after the other."""
    tree: dict[str, Any] = {}
    for word in words:
        node = tree
        for letter in word:
            node = node.setdefault(letter, {})
        node[""] = {}
    return _pattern(tree)


def _pattern(tree: dict[str, Any]) -> str:
    """Alternatives that share their beginnings, so that each letter is looked at once."""
    parts = [re.escape(c) + _pattern(rest) for c, rest in sorted(tree.items()) if c]
    if not parts:
        return ""
    body = parts[0] if len(parts) == 1 and "" not in tree else f"(?:{'|'.join(parts)})"
    return f"{body}?" if "" in tree else body


@cache
def _rules() -> dict[str, Any]:
    rules: dict[str, Any] = load_yaml(WORD_RULES)
    return rules


def _forms(word: str) -> Iterator[str]:
    yield word
    plurals = [many for many, one in _rules()["plurals"].items() if word.lower().endswith(one)]
    for many in plurals:
        yield word[: len(word) - len(_rules()["plurals"][many])] + many
    if word.endswith(("ss", "x", "ch")):
        yield word + "es"
    elif word.endswith("y"):
        yield word[:-1] + "ies"
    elif not word.endswith("s"):
        yield word + "s"


def _spellings(word: str) -> Iterator[str]:
    yield word
    for british, american in _rules()["spelling"].items():
        if american in word and len(american) > _ORDINARY_HEADS:
            yield word.replace(american, british)
    if word.startswith("hem"):
        yield "haem" + word[3:]
