"""Checks a rewritten sentence against its source: it may say less, never more.

Cleaning removes what an image cannot show. A number, a side, a negation or a target that the source
does not have is a hallucination.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tasks.engines.llm.protocols.names import TargetNames
from tasks.engines.protocols import Failure
from taxonomy.words import load_yaml, tokenize

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_MAX_GROWTH = 1.1
"""Length of the rewritten sentence over that of its source; cleaning shortens."""
_GROWTH_ALLOWANCE = 12
"""Characters that a short sentence may grow by: "Effusion resolved." becomes "No effusion."."""


def rewrite_fault(source: str, rewritten: str, names: TargetNames) -> Failure | None:
    """What a rewritten sentence adds to its source, if anything.

    Codes: `rewrite_is_no_report`, `rewrite_too_long`, `rewrite_adds_number`, `rewrite_adds_side`,
    `rewrite_adds_negation`, `rewrite_adds_target`.
    """
    patterns = _patterns()

    def fault(reason: str, what: str) -> Failure:
        return Failure(reason, f"“{rewritten}” {what}, unlike “{source}”")

    if patterns["refusals"].match(rewritten) and not patterns["refusals"].match(source):
        return fault("rewrite_is_no_report", "speaks to the reader")
    if len(rewritten) > len(source) * _MAX_GROWTH + _GROWTH_ALLOWANCE:
        return fault("rewrite_too_long", "is longer")
    if added := set(_NUMBER.findall(rewritten)) - set(_NUMBER.findall(source)):
        return fault("rewrite_adds_number", f"says {_listed(added)}")
    if added := _words(patterns["sides"], rewritten) - _words(patterns["sides"], source):
        return fault("rewrite_adds_side", f"says {_listed(added)}")
    if patterns["negations"].search(rewritten) and not (
        patterns["negations"].search(source) or patterns["denials"].search(source)
    ):
        return fault("rewrite_adds_negation", "denies something")
    known = names.found_in(source)
    said = {form.word for form in tokenize(source).forms}
    for words, target in names.found_in(rewritten).items():
        # Words may become adjacent when others are removed: "aortic ___ calcification".
        if target not in known.values() and not {f.word for f in tokenize(words).forms} <= said:
            return fault("rewrite_adds_target", f"names “{words}”")
    return None


def has_leftovers(sentence: str) -> bool:
    """Whether a sentence still refers to other images or to change over time."""
    return _patterns()["leftovers"].search(sentence) is not None


def _words(pattern: re.Pattern[str], text: str) -> set[str]:
    return {match[0].lower() for match in pattern.finditer(text)}


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    raw = load_yaml(Path(__file__).with_suffix(".yaml"))
    return {
        name: re.compile(rf"\b(?:{'|'.join(map(str, words))})\b", re.IGNORECASE)
        for name, words in raw.items()
    }
