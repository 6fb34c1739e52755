"""What changed between two taxonomies, in terms of targets.

A target that takes the place of others says so by `replaces`: one for one is a rename, several for
one a split, one for several a merge. What nobody replaces was removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from taxonomy.targets import Target, Taxonomy
from taxonomy.words import phrase_key

Kind = Literal[
    "added",
    "removed",
    "renamed",
    "split",
    "merged",
    "synonym added",
    "synonym removed",
    "parent added",
    "parent removed",
    "category",
    "group",
    "origin",
    "grounding",
]

GROUNDINGS = ("vindr", "sat", "totalsegmentator")
"""The fields of a target that say which class of a model grounds it."""


_SINGLE: tuple[Literal["category", "group", "origin"], ...] = ("category", "group", "origin")
"""Fields of a target that have one value."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one target.

    target: its name in the new taxonomy; of a removed one, in the old.
    before, after: what it was and what it is: target names of a rename, a split or a merge, words
        of a synonym, names of a parent, values of a field. Empty where there was, or is, nothing.
    field: which class changed, of a grounding.
    """

    kind: Kind
    target: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    field: str | None = None

    def __str__(self) -> str:
        """A line for a person."""
        before, after = (", ".join(words) or "nothing" for words in (self.before, self.after))
        match self.kind:
            case "added" | "removed":
                return f"{self.target}: {self.kind}"
            case "renamed":
                return f"{self.target}: renamed, was {before}"
            case "split":
                return f"{before}: split into {after}"
            case "merged":
                return f"{self.target}: merged from {before}"
            case "synonym added" | "parent added":
                return f"{self.target}: {self.kind}: {after}"
            case "synonym removed" | "parent removed":
                return f"{self.target}: {self.kind}: {before}"
            case _:
                return f"{self.target}: {self.field or self.kind} was {before}, is {after}"


def diff(old: Taxonomy, new: Taxonomy) -> list[Change]:
    """Every change from `old` to `new`, by target in the order of `new`, then what is gone.

    Words that differ in case, plural or spelling alone, which the taxonomy understands, are no
    change.
    """
    heirs = heirs_of(old, new)
    changes: list[Change] = []
    for target in new.targets.values():
        origins = [name for name, into in heirs.items() if target.name in into]
        if target.name in old:
            if origins:
                changes.append(Change("merged", target.name, before=(target.name, *origins)))
            changes += _differences(old[target.name], target, heirs)
        elif not origins:
            changes.append(Change("added", target.name))
        elif len(origins) > 1:
            changes.append(Change("merged", target.name, before=tuple(origins)))
        elif len(heirs[origins[0]]) == 1:
            changes.append(Change("renamed", target.name, before=tuple(origins)))
            changes += _differences(old[origins[0]], target, heirs)
    for name in old.targets:
        if len(into := heirs.get(name, ())) > 1:
            changes.append(Change("split", name, before=(name,), after=into))
        elif name not in new and not into:
            changes.append(Change("removed", name))
    return changes


def heirs_of(old: Taxonomy, new: Taxonomy) -> dict[str, tuple[str, ...]]:
    """The targets of `new` that replace each one of `old` that is gone."""
    heirs: dict[str, tuple[str, ...]] = {}
    for target in new.targets.values():
        for name in target.replaces:
            if name in old and name not in new:
                heirs[name] = (*heirs.get(name, ()), target.name)
    return heirs


def _differences(
    before: Target, after: Target, heirs: dict[str, tuple[str, ...]]
) -> Iterator[Change]:
    """Changes of a target that is in both taxonomies, under this or another name."""
    name = after.name
    was, now = _phrases(before), _phrases(after)
    now.pop(phrase_key(name), None)  # a new name is no synonym
    was.pop(phrase_key(name), None)
    for key in now.keys() - was.keys():
        yield Change("synonym added", name, after=(now[key],))
    for key in was.keys() - now.keys():
        yield Change("synonym removed", name, before=(was[key],))
    old_parents = {heir for parent in before.parents for heir in heirs.get(parent, (parent,))}
    for parent in _only(after.parents, old_parents):
        yield Change("parent added", name, after=(parent,))
    for parent in sorted(old_parents - {*after.parents}):
        yield Change("parent removed", name, before=(parent,))
    for kind in _SINGLE:
        was_said, is_said = getattr(before, kind), getattr(after, kind)
        if was_said != is_said:
            yield Change(kind, name, (was_said,), (is_said,))
    for field in GROUNDINGS:
        classes = [(found,) if (found := getattr(t, field)) else () for t in (before, after)]
        if classes[0] != classes[1]:
            yield Change("grounding", name, classes[0], classes[1], field)


def _phrases(target: Target) -> dict[tuple[str, ...], str]:
    """The words that stand for a target, by what tells them apart."""
    return {phrase_key(phrase): phrase for phrase in target.phrases}


def _only(names: Iterable[str], other: set[str]) -> list[str]:
    return [name for name in names if name not in other]
