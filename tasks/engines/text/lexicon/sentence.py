"""A sentence as the extractor sees it: words, and the vocabulary's phrases among them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks.engines.text.lexicon.spelling import Spelling
from tasks.engines.text.lexicon.vocabulary import Term
from taxonomy.matcher import PhraseTree
from taxonomy.words import Form, Tokens, tokenize

_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Unit:
    """A phrase of the vocabulary: tokens `first` to `after`, half-open."""

    first: int
    after: int
    term: Term


@dataclass(frozen=True, slots=True)
class Sentence:
    """`words[i]` is the normal form of token i; `at[i]` the unit that token belongs to.

    all_words: `words`, without their order.
    misspelled: the tokens whose word stands for the one that was written.
    """

    tokens: Tokens
    words: tuple[str, ...]
    units: tuple[Unit, ...]
    at: tuple[Unit | None, ...]
    all_words: frozenset[str]
    misspelled: frozenset[int] = frozenset()

    def word(self, i: int) -> str:
        """The word of token i; empty behind the end."""
        return self.words[i] if i < len(self.words) else ""

    def unit(self, i: int) -> Unit | None:
        """The unit of token i; none behind the end."""
        return self.at[i] if i < len(self.at) else None

    def is_plural(self, unit: Unit) -> bool:
        """Whether the last word of a unit is a plural."""
        return self.tokens.forms[unit.after - 1].is_plural


def read_sentence(text: str, terms: PhraseTree[Term], spelling: Spelling) -> Sentence:
    """Tokenise a sentence and find the vocabulary's phrases in it, longest first."""
    tokens = tokenize(text)
    meant = spelling.corrections({form.word for form in tokens.forms})
    misspelled = (
        frozenset(i for i, f in enumerate(tokens.forms) if f.word in meant) if meant else _NONE
    )
    if misspelled:
        forms = (
            Form(meant[form.word], is_plural=form.is_plural) if form.word in meant else form
            for form in tokens.forms
        )
        tokens = replace(tokens, forms=tuple(forms))
    units = tuple(Unit(first, after, term) for first, after, term in terms.find(tokens))
    at: list[Unit | None] = [None] * len(tokens)
    for unit in units:
        at[unit.first : unit.after] = [unit] * (unit.after - unit.first)
    words = tuple(f.word for f in tokens.forms)
    return Sentence(tokens, words, units, tuple(at), frozenset(words), misspelled)
