"""Labels of whole images in a table: a column each, or all in one cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, model_validator

from storage.datasets.label_values import LABEL_VALUES
from storage.datasets.rows import Row


class LabelError(Exception):
    """A label's cell that holds what is no label; the message says which."""


class LabelColumns(BaseModel):
    """The columns of a table of labels.

    prefix: what stands before a label's name in the store, with a colon.
    names: the labels. With `joined`, all of them are in that column, those present separated by
        `separator`; else each has a column of 1, 0, -1 or nothing.
    also: other names that a label's column has in some releases.
    patient, view: columns of the patient's id and the view position.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    prefix: str
    names: tuple[str, ...]
    joined: str | None = None
    separator: str = "|"
    also: Mapping[str, str] = {}
    patient: str | None = None
    view: str | None = None

    @model_validator(mode="after")
    def _known(self) -> LabelColumns:
        for name in self.also.values():
            if name not in self.names:
                raise ValueError(f"also: there is no label {name!r}")
        return self

    def required(self) -> list[str]:
        """The columns that the table must have."""
        known = {*self.also.values()}
        own = [self.joined] if self.joined else [name for name in self.names if name not in known]
        return [name for name in (self.image, self.patient, self.view, *own) if name]

    def optional(self) -> list[str]:
        """Columns of which the table has some."""
        return [*self.also, *self.also.values()]

    def values(self, rows: Sequence[Row]) -> dict[str, int]:
        """The labels of an image from its rows, one a reader: 1, 0 or -1.

        Several readers: present if most say so, absent if all do, else uncertain.

        Raises:
            LabelError: if a cell holds something else.
        """
        votes: dict[str, list[int]] = {}
        for row in rows:
            for name, value in self._of_row(row).items():
                votes.setdefault(name, []).append(value)
        return {f"{self.prefix}:{name}": _majority(of_name) for name, of_name in votes.items()}

    def _of_row(self, row: Row) -> dict[str, int]:
        if self.joined:
            present = {
                part.strip() for part in row.cells.get(self.joined, "").split(self.separator)
            }
            if unknown := sorted(present - {*self.names, ""}):
                raise LabelError(f"{self.joined} has {unknown[0]!r}, which is no declared label")
            return {name: int(name in present) for name in self.names}
        other = {name: column for column, name in self.also.items() if column in row.cells}
        said = {name: row.cells.get(other.get(name, name), "") for name in self.names}
        for name, cell in said.items():
            if cell not in LABEL_VALUES:
                raise LabelError(f"{name} is {cell!r}, not 1, 0, -1 or empty")
        values = {name: LABEL_VALUES[cell] for name, cell in said.items()}
        return {name: value for name, value in values.items() if value is not None}


def _majority(votes: Sequence[int]) -> int:
    if len(set(votes)) == 1:
        return votes[0]
    return 1 if 2 * votes.count(1) > len(votes) else -1
