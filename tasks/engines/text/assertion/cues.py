"""The cue words of `cues.yaml`, expanded and ready to be found in a tokenised sentence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml

from taxonomy.matcher import PhraseTree
from taxonomy.words import phrase_key

Meaning = Literal["probable", "possible", "absent", "stated", "nothing", "stop"]

GRADES: tuple[Literal["probable", "possible", "absent"], ...] = ("probable", "possible", "absent")
"""The meanings that are assertions, the weakest claim of presence last; it wins over the others."""

MEANINGS: tuple[Meaning, ...] = (*GRADES, "stated")
"""Those of cues that speak of findings; `stated`: there, whatever other cues say."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORD_LISTS = (
    "fresh", "fresh_structures", "verbs", "shared", "changes", "predicates", "adjuncts", "sequels",
    "insides", "places", "conjunctions", "adverbs", "openers", "denials", "affirmations", "doubts",
    "singular_pronouns", "plural_pronouns", "relative_pronouns", "general_nouns", "ones",
)  # fmt: skip
_SLOT = re.compile(r"\(([^()|]*\|[^()]*)\)")


@dataclass(frozen=True, slots=True)
class Cue:
    """What a cue phrase means, and where the findings stand that it speaks of.

    alternatives: what it means instead where several explanations follow: "may be scar or edema".
    """

    meaning: Meaning
    finding: Literal["after", "before", "around", "either"] = "around"
    scope: Literal["clause", "nearest", "sentence"] = "clause"
    about: Literal["abnormality", "anatomy"] = "abnormality"
    alternatives: Literal["possible"] | None = None


@dataclass(frozen=True)
class Cues:
    """Everything of `cues.yaml`; a phrase may carry several cues."""

    tree: PhraseTree[tuple[Cue, ...]]
    fresh: frozenset[str]
    fresh_structures: frozenset[str]
    verbs: frozenset[str]
    shared: frozenset[str]
    changes: frozenset[str]
    predicates: frozenset[str]
    adjuncts: frozenset[str]
    sequels: frozenset[str]
    insides: frozenset[str]
    places: frozenset[str]
    conjunctions: frozenset[str]
    adverbs: frozenset[str]
    openers: frozenset[str]
    denials: frozenset[str]
    affirmations: frozenset[str]
    doubts: frozenset[str]
    singular_pronouns: frozenset[str]
    plural_pronouns: frozenset[str]
    relative_pronouns: frozenset[str]
    general_nouns: frozenset[str]
    ones: frozenset[str]
    referring: re.Pattern[str]
    digest: str

    @cached_property
    def any_pronoun(self) -> frozenset[str]:
        """All that may stand for a finding."""
        pronouns = self.singular_pronouns | self.plural_pronouns | self.relative_pronouns
        return pronouns | self.general_nouns | self.ones


@cache
def load_cues() -> Cues:
    """The packaged cues, read once."""
    content = Path(__file__).with_name("cues.yaml").read_bytes()
    raw = yaml.load(content, _Loader)  # noqa: S506
    by_phrase: dict[tuple[str, ...], dict[Cue, str]] = {}
    for phrase, cue in _entries(raw):
        by_phrase.setdefault(phrase_key(phrase), {})[cue] = phrase
    return Cues(
        tree=PhraseTree((next(iter(cues.values())), tuple(cues)) for cues in by_phrase.values()),
        **{name: frozenset(raw[name]) for name in _WORD_LISTS},
        referring=re.compile(rf"\b(?:{'|'.join(raw['referring'])})\b", re.IGNORECASE),
        digest=hashlib.sha256(content).hexdigest(),
    )


def _entries(raw: dict[str, Any]) -> Iterator[tuple[str, Cue]]:
    for group in raw["groups"]:
        settings = {k: v for k, v in group.items() if k not in ("means", "phrases")}
        cue = Cue(group["means"], **settings)
        yield from ((phrase, cue) for phrase in _expanded(group["phrases"]))
    yield from ((word, Cue("stop")) for word in raw["stops"])


def _expanded(patterns: Iterable[str]) -> Iterator[str]:
    """The phrases a pattern stands for: "(is|are|) absent" gives three."""
    for pattern in patterns:
        fixed = _SLOT.split(pattern)
        choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(fixed)]
        for pieces in product(*choices):
            yield " ".join("".join(pieces).split())
