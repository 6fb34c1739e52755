"""The targets: what the product can name, how they relate, and what can ground them.

`targets.yaml` is written by hand for people to review; this module checks it whole and gives it
a content digest, so that a stage knows whether the part it reads has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from taxonomy.reading import Category, Named, Origin, read_entries
from taxonomy.words import phrase_key

Part = Literal["lexicon", "groundings", "all"]
Choice = Literal["paper", "all"]
"""Which targets to name: those of the paper, or ours too."""

PACKAGED = Path(__file__).with_suffix(".yaml")

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "lexicon": ("category", "group", "parents", "synonyms", "replaces"),
    "groundings": ("category", "parents", "vindr", "sat", "totalsegmentator", "replaces"),
    "all": (
        "category",
        "group",
        "parents",
        "synonyms",
        "vindr",
        "sat",
        "totalsegmentator",
        "origin",
        "replaces",
    ),
}


class TaxonomyError(Exception):
    """A taxonomy that cannot be used; the message has one sentence per problem."""


@dataclass(frozen=True, slots=True)
class Target:
    """A structure or abnormality.

    vindr, sat, totalsegmentator: classes that ground it.
    replaces: targets of earlier taxonomies whose place it takes.
    """

    name: str
    category: Category
    group: str
    parents: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    vindr: str | None = None
    sat: str | None = None
    totalsegmentator: str | None = None
    origin: Origin = "paper"
    replaces: tuple[str, ...] = ()

    @property
    def phrases(self) -> tuple[str, ...]:
        """All that stands for it in a report: its name and its synonyms."""
        return self.name, *self.synonyms


_TARGETS = TypeAdapter(tuple[Target, ...])


class Taxonomy:
    """A checked set of targets; parents form a graph without cycles."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self.targets: Mapping[str, Target] = MappingProxyType(dict(targets))
        self._children: dict[str, list[str]] = {}
        for target in targets.values():
            for parent in target.parents:
                self._children.setdefault(parent, []).append(target.name)

    def __getitem__(self, name: str) -> Target:
        """The target of this name.

        Raises:
            KeyError: if there is none.
        """
        return self.targets[name]

    def __contains__(self, name: object) -> bool:
        return name in self.targets

    @cached_property
    def earlier_names(self) -> Mapping[str, str]:
        """The first name that each renamed target had, by its name of today.

        A target is renamed if it alone replaces an earlier one; of several, the first counts.
        """
        claims = Counter(name for target in self.targets.values() for name in target.replaces)
        return {
            target.name: target.replaces[0]
            for target in self.targets.values()
            if target.replaces and claims[target.replaces[0]] == 1
        }

    @cached_property
    def of_engines(self) -> Taxonomy:
        """This taxonomy under the names by which engines know its targets.

        Vocabulary, atlas and the like name targets, and are not edited with a team's taxonomy:
        a renamed target keeps its earlier name there, and the new one is a synonym.
        """
        earlier = self.earlier_names
        if not earlier:
            return self

        def renamed(target: Target) -> Target:
            name = earlier.get(target.name, target.name)
            phrases = dict.fromkeys(phrase for phrase in target.phrases if phrase != name)
            parents = tuple(earlier.get(parent, parent) for parent in target.parents)
            return replace(target, name=name, parents=parents, synonyms=tuple(phrases), replaces=())

        return Taxonomy({t.name: t for t in map(renamed, self.targets.values())})

    def to_engines(self, name: str) -> str:
        """The name by which engines know a target."""
        return self.earlier_names.get(name, name)

    def from_engines(self, name: str) -> str:
        """The name of today of a target that an engine has named."""
        return self._today.get(name, name)

    @cached_property
    def _today(self) -> Mapping[str, str]:
        return {earlier: name for name, earlier in self.earlier_names.items()}

    def ancestors(self, name: str) -> frozenset[str]:
        """Every broader target, parents of parents included, itself not."""
        return _reach(name, lambda n: self.targets[n].parents)

    def descendants(self, name: str) -> frozenset[str]:
        """Every narrower target, children of children included, itself not."""
        return _reach(name, lambda n: self._children.get(n, ()))

    def chosen(self, choice: Choice) -> Taxonomy:
        """This taxonomy, or the part of it that the paper names.

        There, the phrases of a target of ours go to the nearest broader targets that the paper
        has: a calcified granuloma is a calcification.
        """
        if choice == "all":
            return self
        kept = {name for name, target in self.targets.items() if target.origin == "paper"}
        phrases = {name: list(self.targets[name].synonyms) for name in kept}
        for name, target in self.targets.items():
            heirs = () if name in kept else self._nearest(name, kept)
            for heir in heirs[:1]:
                phrases[heir] += [name, *target.synonyms]
        return Taxonomy(
            {
                name: replace(
                    self.targets[name],
                    parents=tuple(p for p in self.targets[name].parents if p in kept),
                    synonyms=tuple(phrases[name]),
                )
                for name in self.targets
                if name in kept
            }
        )

    def _nearest(self, name: str, kept: Container[str]) -> list[str]:
        """The closest ancestors that are kept."""
        nearest: list[str] = []
        for parent in self.targets[name].parents:
            nearest += [parent] if parent in kept else self._nearest(parent, kept)
        return nearest

    def to_json(self) -> str:
        """The whole taxonomy; `from_json` makes an equal one of it."""
        return json.dumps([asdict(target) for target in self.targets.values()], indent=1)

    @classmethod
    def from_json(cls, text: str) -> Taxonomy:
        """The taxonomy of a `to_json`.

        Raises:
            TaxonomyError: if the text is of something else.
        """
        try:
            targets = _TARGETS.validate_json(text)
        except ValidationError as error:
            raise TaxonomyError("this is no taxonomy that a store has kept") from error
        return cls({target.name: target for target in targets})

    def digest(self, part: Part) -> str:
        """SHA-256 of what a part of the product reads; order and layout of the file don't count.

        Args:
            part: "lexicon" for names, categories, groups, parents and synonyms (the text steps),
                "groundings" for names and classes (the localizers), "all" for everything.
                What a target replaces is in all of them: engines know it by its earlier name.
        """
        content = {t.name: _content(t, _FIELDS[part]) for t in self.targets.values()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_taxonomy(path: Path | None = None) -> Taxonomy:
    """Read and check a taxonomy, the packaged one by default (read once).

    Raises:
        TaxonomyError: with one sentence per problem of the file, each with its line.
    """
    return _packaged() if path is None else _load(path)


@cache
def _packaged() -> Taxonomy:
    return _load(PACKAGED)


def _load(path: Path) -> Taxonomy:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaxonomyError(f"{path}: the taxonomy cannot be read: {error}") from None
    entries, problems = read_entries(text)
    problems += _duplicates(entries) + _unknown_parents(entries) + _shared_phrases(entries)
    problems += _cycle(entries) + _still_there(entries)
    if not (entries or problems):
        problems = ["the file names no target"]
    if problems:
        raise TaxonomyError("\n".join(f"{path.name}, {problem}" for problem in problems))
    inherited = _inherited(entries)
    return Taxonomy({named.name: _target(named, inherited) for named in entries})


def _target(named: Named, inherited: Mapping[str, tuple[str, ...]]) -> Target:
    entry = named.entry
    return Target(
        named.name,
        named.category,
        named.group,
        entry.parents,
        (*entry.synonyms, *inherited.get(named.name, ())),
        entry.vindr,
        entry.sat,
        entry.totalsegmentator,
        entry.origin,
        entry.replaces,
    )


def _inherited(entries: list[Named]) -> dict[str, tuple[str, ...]]:
    """Names of earlier targets that stay words for the one target that replaces each of them."""
    own = {phrase_key(p) for named in entries for p in (named.name, *named.entry.synonyms)}
    heirs: dict[str, list[str]] = {}
    for named in entries:
        for name in named.entry.replaces:
            heirs.setdefault(name, []).append(named.name)
    inherited: dict[str, tuple[str, ...]] = {}
    for name, into in heirs.items():
        if len(into) == 1 and phrase_key(name) not in own:
            inherited[into[0]] = (*inherited.get(into[0], ()), name)
    return inherited


def _still_there(entries: list[Named]) -> list[str]:
    lines = {named.name: named.line for named in entries}
    return [
        f"line {named.line}: target {named.name!r} replaces {name!r}, which is still there "
        f"(line {lines[name]}); remove that target, or the word under `replaces`"
        for named in entries
        for name in named.entry.replaces
        if name in lines
    ]


def _duplicates(entries: list[Named]) -> list[str]:
    first: dict[str, int] = {}
    problems = []
    for named in entries:
        if named.name in first:
            problems.append(
                f"line {named.line}: target {named.name!r} is already on line "
                f"{first[named.name]}; remove or rename one"
            )
        first.setdefault(named.name, named.line)
    return problems


def _unknown_parents(entries: list[Named]) -> list[str]:
    names = {named.name for named in entries}
    return [
        f"line {named.line}: target {named.name!r} has the unknown parent {parent!r}; "
        "add that target or correct its name"
        for named in entries
        for parent in named.entry.parents
        if parent not in names
    ]


def _shared_phrases(entries: list[Named]) -> list[str]:
    owner: dict[tuple[str, ...], Named] = {}
    problems = []
    for named in entries:
        for phrase in (named.name, *named.entry.synonyms):
            if not phrase_key(phrase):
                problems.append(
                    f"line {named.line}: {phrase!r} of target {named.name!r} has no word to be "
                    "found by; write one or remove it"
                )
                continue
            other = owner.setdefault(phrase_key(phrase), named)
            if other.name != named.name:
                problems.append(
                    f"line {named.line}: {phrase!r} of target {named.name!r} already stands for "
                    f"{other.name!r} (line {other.line}); keep it on one of them"
                )
    return problems


def _cycle(entries: list[Named]) -> list[str]:
    lines = {named.name: named.line for named in entries}
    try:
        TopologicalSorter({n.name: n.entry.parents for n in entries}).prepare()
    except CycleError as error:
        ring = error.args[1][::-1]
        return [
            f"line {lines[ring[0]]}: target {ring[0]!r} is its own ancestor "
            f"({' -> '.join(ring)}); remove one of these parents"
        ]
    return []


def _reach(name: str, step: Callable[[str], Any]) -> frozenset[str]:
    reached: set[str] = set()
    waiting = list(step(name))
    while waiting:
        current = waiting.pop()
        if current not in reached:
            reached.add(current)
            waiting.extend(step(current))
    return frozenset(reached)


def _content(target: Target, fields: tuple[str, ...]) -> dict[str, Any]:
    values = {field: getattr(target, field) for field in fields}
    return {k: sorted(v) if isinstance(v, tuple) else v for k, v in values.items()}
