"""Reads the YAML of the taxonomy with the line of every entry, and expands its templates.

Every problem becomes one sentence with its line; reading goes on, so that a person sees all of
them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from taxonomy.words import ordinal

Category = Literal["anatomy", "abnormality"]
Origin = Literal["paper", "vividmed"]
"""Who names a target: the paper's taxonomy, or this product beside it."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Entry(BaseModel):
    """What `targets.yaml` says under a name; lists may be written as a single string."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parents: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    vindr: str | None = None
    sat: str | None = None
    totalsegmentator: str | None = None
    numbers: tuple[int, ...] = ()
    origin: Origin = "paper"
    replaces: tuple[str, ...] = ()

    @field_validator("parents", "synonyms", "replaces", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Named:
    """An expanded entry: a target's name, where it stands in the file, and what is said of it."""

    name: str
    line: int
    category: Category
    group: str
    entry: Entry


def read_entries(text: str) -> tuple[list[Named], list[str]]:
    """Read a taxonomy; gives the expanded entries and one sentence per problem."""
    problems: list[str] = []
    try:
        root = yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the file"
        what = getattr(error, "problem", None) or "it cannot be read"
        return [], [
            f"{where}: not valid YAML ({what}); correct the indentation, quotes or brackets"
        ]
    names: list[Named] = []
    for category, category_line, groups in _items(root, "the file", problems):
        if category not in get_args(Category):
            problems.append(
                f"line {category_line}: category {category!r} is unknown; "
                "use 'anatomy' or 'abnormality'"
            )
            continue
        for group, _, entries in _items(groups, f"category {category!r}", problems):
            for name, line, node in _items(entries, f"group {group!r}", problems):
                entry = _entry(name, line, node, problems)
                kind = cast(Category, category)
                names += _expand(Named(name, line, kind, group, entry), problems)
    return names, problems


def _items(
    node: yaml.Node | None, where: str, problems: list[str]
) -> Iterator[tuple[str, int, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1 if node else 1
        problems.append(f"line {line}: {where} must hold names with a colon after each")
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            yield key.value, key.start_mark.line + 1, value
        else:
            line = key.start_mark.line + 1
            problems.append(f"line {line}: a name must be a word or a quoted text")


def _entry(name: str, line: int, node: yaml.Node, problems: list[str]) -> Entry:
    """What the file says of a target; nothing where it cannot be understood."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        problems += [
            f"line {line}: target {name!r}: key {key!r} is there twice; keep one"
            for key in dict.fromkeys(keys)
            if keys.count(key) > 1
        ]
    loader = _Loader("")
    try:
        return Entry.model_validate(loader.construct_object(node, deep=True) or {})
    except ValidationError as error:
        known = ", ".join(Entry.model_fields)
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            problems.append(
                f"line {line}: target {name!r}: key {key!r} is unknown; use {known}"
                if item["type"] == "extra_forbidden"
                else f"line {line}: target {name!r}: {key or 'the entry'}: {item['msg']}"
            )
    except yaml.YAMLError:
        problems.append(f"line {line}: target {name!r}: its value cannot be read; quote it")
    finally:
        loader.dispose()
    return Entry()


def _expand(named: Named, problems: list[str]) -> list[Named]:
    """One entry per side and number that the template stands for; itself when it has none."""
    sides = ("left", "right") if "{side}" in named.name else ("",)
    numbers = named.entry.numbers or (0,)
    expanded = []
    for side in sides:
        for n in numbers:
            values = {"side": side} if side else {}
            values |= {"n": str(n), "nth": ordinal(n)} if n else {}
            try:
                expanded.append(_fill(named, values))
            except (AttributeError, IndexError, KeyError, ValueError) as error:
                problems.append(
                    f"line {named.line}: target {named.name!r}: placeholder {error} has no value; "
                    "{side} must be in the name, and {n}, {nth} need `numbers`"
                )
                return []
    return expanded


def _fill(named: Named, values: dict[str, str]) -> Named:
    entry = named.entry

    def fill(template: str | None) -> str | None:
        return template and template.format_map(values)

    filled = Entry.model_construct(
        parents=tuple(p.format_map(values) for p in entry.parents),
        synonyms=tuple(s.format_map(values) for s in entry.synonyms),
        vindr=fill(entry.vindr),
        sat=fill(entry.sat),
        totalsegmentator=fill(entry.totalsegmentator),
        origin=entry.origin,
        replaces=tuple(r.format_map(values) for r in entry.replaces),
    )
    return Named(named.name.format_map(values), named.line, named.category, named.group, filled)
