"""What a change of the taxonomy can touch: which reports, found by their words, and which targets.

A text step reads a report by the words in it. A report without the words of anything that changed
is read as before, so its rows can be kept. Every rule here errs on the side of reading a report
again; `tests/tasks/pipeline/test_renewal.py` holds that with random edits.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from taxonomy.diff import GROUNDINGS, Change
from taxonomy.targets import Target, Taxonomy
from taxonomy.words import form, phrase_key, tokenize

Words = frozenset[str]
"""Normal forms of words: a report that has all of them may be read differently."""

JOINED = "~"
"""Begins a word in the index of a report's words that is there only if the two parts of a word
hyphenated at a line's end are joined."""

SHORTEST_GUESSED = 5
"""Letters of the shortest word that may be read as a misspelling of another one."""

_SIDES = frozenset({"left", "right", "half"})
"""Words that the grammar adds to a name, or finds elsewhere in the sentence."""

_NUMBERED = re.compile(r"(?:\brib|\bvertebra) \d+|\b[CTLS]\d+ vertebra")
"""Targets that a range names without their words: "T5 to T8"."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Impact:
    """What a change can touch.

    words: a report is touched if it has every word of one of them.
    renamed: new names by old ones.
    regrounded: targets, by their new name, that other classes ground.
    whole: why every report has to be read again; None if `words` tells which.
    """

    words: frozenset[Words] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)
    regrounded: frozenset[str] = frozenset()
    whole: str | None = None


def impact(old: Taxonomy, new: Taxonomy, named_elsewhere: Collection[str] = ()) -> Impact:
    """What of a data set annotated with `old` may differ with `new`.

    Args:
        old: the taxonomy that the data set was annotated with.
        new: the one to annotate it with.
        named_elsewhere: targets that an engine's own data name. Such a target is found by words
            that the taxonomy does not know: if it comes, goes or changes kind, all is read again.
    """
    before, after = old.of_engines, new.of_engines
    changed = {
        name
        for name in before.targets.keys() | after.targets.keys()
        if _kind(before, name) != _kind(after, name)
    }
    return Impact(
        frozenset(_smallest(_touched(before, after, changed))),
        dict(_renamed(old, new)),
        frozenset(_regrounded(old, new)) | {new.from_engines(n) for n in changed if n in after},
        _whole(changed, named_elsewhere),
    )


def words_of_change(change: Change, old: Taxonomy, new: Taxonomy) -> tuple[Words, ...]:
    """The words by which reports that one change is about are found; none where none tell."""
    match change.kind:
        case "synonym added" | "synonym removed":
            phrases: Iterable[str] = (*change.before, *change.after)
        case "added" | "removed" | "category" | "parent added" | "parent removed":
            phrases = (new if change.target in new else old)[change.target].phrases
        case "renamed":
            phrases = (change.target,)
        case _:
            return ()
    return tuple(_smallest(_sought(phrase_key(phrase)) for phrase in phrases))


def _kind(taxonomy: Taxonomy, name: str) -> tuple[object, ...] | None:
    """What of a target, beside its words, the text steps read."""
    if name not in taxonomy:
        return None
    return taxonomy[name].category, frozenset(taxonomy[name].parents)


def _whole(changed: Collection[str], named_elsewhere: Collection[str]) -> str | None:
    for name in sorted(changed):
        if not {name, _without_sides(name)}.isdisjoint(named_elsewhere):
            return f"the engines find {name} by words of their own"
        if _NUMBERED.search(name):
            return f"a range of ribs or vertebrae may name {name} without its words"
    return None


def _touched(before: Taxonomy, after: Taxonomy, changed: Collection[str]) -> Iterator[Words]:
    was, now = _owners(before), _owners(after)
    for key in was.keys() | now.keys():
        if was.get(key) != now.get(key):
            yield _sought(key)
    for taxonomy in (before, after):
        for name in changed:
            for target in _relatives(name, taxonomy):
                yield from (_sought(phrase_key(phrase)) for phrase in target.phrases)
    for word in _known(before) ^ _known(after):
        # At a line's end, a hyphen is dropped from a word that is known.
        yield frozenset({JOINED + word})
        # A word that becomes known is no misspelling any more.
        if len(word) >= SHORTEST_GUESSED:
            yield frozenset({word})
    # Cleaning takes the last word of a finding's name for a finding.
    yield from _heads(before) ^ _heads(after)


def _owners(taxonomy: Taxonomy) -> dict[tuple[str, ...], str]:
    targets = taxonomy.targets.values()
    return {phrase_key(phrase): target.name for target in targets for phrase in target.phrases}


def _sought(key: Iterable[str]) -> Words:
    """The words of a phrase that stand in every text which names it."""
    return frozenset(w for w in key if w not in _SIDES and not w[0].isdigit()) or frozenset(key)


def _relatives(name: str, taxonomy: Taxonomy) -> Iterator[Target]:
    """A target, and those that differ from it by a side alone."""
    bare = _without_sides(name)
    return (t for t in taxonomy.targets.values() if _without_sides(t.name) == bare)


def _without_sides(name: str) -> str:
    return " ".join(word for word in name.split() if word not in _SIDES)


def _known(taxonomy: Taxonomy) -> set[str]:
    phrases = (phrase for target in taxonomy.targets.values() for phrase in target.phrases)
    return {
        word
        for phrase in phrases
        for f in tokenize(phrase).forms
        for word in (f.word, f.capitals)
        if word
    }


def _heads(taxonomy: Taxonomy) -> set[Words]:
    return {
        frozenset(form(word).word for word in _WORD.findall(phrase.rsplit(" ", 1)[-1]))
        for target in taxonomy.targets.values()
        if target.category == "abnormality"
        for phrase in target.phrases
    }


def _smallest(patterns: Iterable[Words]) -> list[Words]:
    """The sets of words that no other one is a part of."""
    kept: list[Words] = []
    for words in sorted(set(patterns), key=len):
        if words and not any(smaller <= words for smaller in kept):
            kept.append(words)
    return kept


def _renamed(old: Taxonomy, new: Taxonomy) -> Iterator[tuple[str, str]]:
    for name in old.targets:
        today = new.from_engines(old.to_engines(name))
        if today != name and today in new:
            yield name, today


def _regrounded(old: Taxonomy, new: Taxonomy) -> Iterator[str]:
    for target in new.targets.values():
        known = new.to_engines(target.name)
        was = old.targets.get(old.from_engines(known))
        if was and any(getattr(was, name) != getattr(target, name) for name in GROUNDINGS):
            yield target.name
