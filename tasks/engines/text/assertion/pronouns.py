"""Words of a sentence that stand for a finding named before: it, these, which, a small one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.engines.text.assertion.cues import Cues
from tasks.engines.text.assertion.scope import Mention

Kind = Literal["singular", "plural", "relative", "one"]
_CLAUSE_MARKS = frozenset({",", ";", ".", ":", "(", "-", "–", "—"})
_DETERMINERS = frozenset({"this", "these", "those", "that", "the"})
_DEMONSTRATIVES = frozenset({"this", "these", "those", "that", "which"})


@dataclass(frozen=True, slots=True)
class Pronoun:
    """A pronoun, or a noun that means no more ("the finding"), as a mention of the sentence."""

    mention: Mention
    kind: Kind


def find_pronouns(words: Sequence[str], vocabulary: Cues) -> Iterator[Pronoun]:
    """The pronouns that are subjects of a clause, and every "one", in order."""
    if vocabulary.any_pronoun.isdisjoint(words):
        return
    is_head = True
    for i, word in enumerate(words):
        if kind := _kind(words, i, vocabulary, is_head=is_head):
            first = i - 1 if word in vocabulary.general_nouns else i
            yield Pronoun(Mention(first, i + 1, is_anatomy=False), kind)
        is_head = word in _CLAUSE_MARKS | _DETERMINERS | vocabulary.conjunctions or (
            is_head and word in vocabulary.openers
        )


def _kind(words: Sequence[str], i: int, vocabulary: Cues, *, is_head: bool) -> Kind | None:
    word = words[i]
    if word in vocabulary.ones:
        return "one"
    following = words[i + 1] if i + 1 < len(words) else ""
    goes_on = following in vocabulary.verbs | vocabulary.adverbs
    if word in vocabulary.relative_pronouns and i:
        return "relative" if goes_on else None
    if not is_head or (word in _DEMONSTRATIVES and not goes_on):
        return None
    if word in vocabulary.general_nouns:
        return "singular" if i and words[i - 1] in _DETERMINERS and goes_on else None
    if word in vocabulary.plural_pronouns:
        return "plural"
    return "singular" if word in vocabulary.singular_pronouns else None
