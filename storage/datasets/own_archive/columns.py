"""Which column of a table holds what: by common names, and by what the user says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import yaml

from storage.datasets.reader import DatasetError

SEVERAL = "images"
"""The one thing that several columns may hold."""


@dataclass(frozen=True)
class ColumnMap:
    """columns: by what they hold, as `layout.columns` has it; unused: the table's others."""

    columns: Mapping[str, str | list[str]]
    unused: tuple[str, ...]

    def without(self, holds: str) -> ColumnMap:
        """The same, with the column that holds one thing left unused."""
        column = self.columns.get(holds)
        kept = {key: value for key, value in self.columns.items() if key != holds}
        return ColumnMap(kept, (*self.unused, column) if isinstance(column, str) else self.unused)


@cache
def known_names() -> Mapping[str, list[str]]:
    """The names that are understood, by what a column holds."""
    names: dict[str, list[str]] = yaml.safe_load(
        Path(__file__).with_name("column_names.yaml").read_text(encoding="utf-8")
    )
    return names


def parse_given(words: Iterable[str]) -> dict[str, list[str]]:
    """`study_id=Accession` and the like, by what the column holds.

    Raises:
        DatasetError: if a word is no such pair.
    """
    given: dict[str, list[str]] = {}
    for word in words:
        holds, equals, column = word.partition("=")
        if not (equals and column.strip()):
            raise DatasetError(
                f"--columns {word}: write what a column holds, =, and the column's name, such as "
                "study_id=Accession"
            )
        if (holds := holds.strip().lower()) not in known_names():
            near = get_close_matches(holds, known_names(), 1)
            meant = "".join(f", perhaps {name} was meant" for name in near)
            raise DatasetError(
                f"--columns {word}: there is no {holds}{meant}: choose from "
                f"{', '.join(known_names())}"
            )
        given.setdefault(holds, []).append(column.strip())
    for holds, columns in given.items():
        if len(columns) > 1 and holds != SEVERAL:
            raise DatasetError(f"--columns names two columns as {holds}: {' and '.join(columns)}")
    return given


def understand(table: Path, names: Sequence[str], given: Mapping[str, Sequence[str]]) -> ColumnMap:
    """What each column of a table holds.

    Args:
        table: for messages.
        names: the table's columns.
        given: columns that the user named.

    Raises:
        DatasetError: if the user named a column that is not there, or none tells studies apart.
    """
    chosen = {holds: [_existing(table, names, c) for c in given[holds]] for holds in given}
    taken = {column for columns in chosen.values() for column in columns}
    for holds, known in known_names().items():
        if holds in chosen:
            continue
        by_form = {_form(name): name for name in reversed(names) if name not in taken}
        found = [by_form[form] for form in map(_form, known) if form in by_form]
        if found:
            chosen[holds] = found if holds == SEVERAL else found[:1]
            taken.update(chosen[holds])
    if "study_id" not in chosen:
        raise DatasetError(
            f"{table}: no column is known to tell the studies apart: name it, such as --columns "
            f"study_id={names[0] if names else 'Accession'}; the columns are {', '.join(names)}"
        )
    columns: dict[str, str | list[str]] = {
        holds: chosen[holds] if holds == SEVERAL else chosen[holds][0]
        for holds in known_names()
        if holds in chosen
    }
    return ColumnMap(columns, tuple(name for name in names if name not in taken))


def is_known_name(column: str) -> bool:
    """Whether a column of this name is understood."""
    return _form(column) in _known_forms()


@cache
def _known_forms() -> frozenset[str]:
    return frozenset(_form(name) for names in known_names().values() for name in names)


def _existing(table: Path, names: Sequence[str], said: str) -> str:
    """The column that the user named, in the table's own letters."""
    if said in names:
        return said
    same = [name for name in names if _form(name) == _form(said)]
    if len(same) == 1:
        return same[0]
    near = get_close_matches(said, names, 1)
    meant = "".join(f", perhaps `{name}` was meant" for name in near)
    raise DatasetError(f"{table} has no column `{said}`{meant}; it has {', '.join(names)}")


def _form(name: str) -> str:
    """A column's name without case and without what stands between words."""
    return re.sub(r"[\W_]+", "", name.casefold())
