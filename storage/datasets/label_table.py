"""Tables of labels that a data set ships: a row a study or an image, a column a label."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from storage.datasets.label_values import LABEL_VALUES
from storage.datasets.reader import DatasetError
from storage.datasets.row_index import NoRoomError, RowIndex
from storage.datasets.rows import Row
from storage.rejects import Reject


class Labels(NamedTuple):
    """The labels of a study, and what of its rows cannot be used."""

    values: dict[str, int]
    left_out: tuple[Reject, ...] = ()


class LabelTable:
    """The labels of one table by study. Several threads may read at once.

    table: its file.
    fault: why the table cannot be read; None if it can. Labels are no need: the studies of such a
        table are read without them, and each says so.
    """

    def __init__(
        self,
        table: Path,
        key: str | Callable[[Row], str],
        columns: Collection[str],
        prefix: str = "",
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        """Read the table once, to its end.

        Args:
            table: a file that `read_rows` reads.
            key: the column with the study, or what makes the study of a row.
            columns: of labels; one that the table does not have says nothing.
            prefix: who gave the labels, put before every name: `chexpert:`.
            renamed: what the table calls a label to what it is called here.

        Raises:
            NoRoomError: if its rows cannot be put aside.
        """
        names = {column: column for column in columns} | dict(renamed or {})
        self._names = {column: prefix + name for column, name in names.items()}
        needed = (key,) if isinstance(key, str) else ()
        self.table = table
        self.fault: str | None = None
        self._index: RowIndex | None = None
        try:
            self._index = RowIndex(table, key, needed, tuple(self._names))
        except NoRoomError:
            raise
        except DatasetError as error:
            self.fault = str(error)

    def labels(self, study: str, study_id: str) -> Labels:
        """The labels of a study; none if the table has no row of it.

        Args:
            study: the key of its rows.
            study_id: names it in rejects.
        """
        where = f"labels of {self.table.name}"
        if self._index is None:
            return Labels({}, (Reject(study_id, where, "table_unreadable", self.fault or ""),))
        rows = self._index.rows(study)
        if fault := next((row.fault for row in rows if row.fault), None):
            return Labels({}, (Reject(study_id, where, "row_malformed", fault),))
        if any(row.cells != rows[0].cells for row in rows[1:]):
            detail = "rows of one study give different labels"
            return Labels({}, (Reject(study_id, where, "rows_disagree", detail),))
        values: dict[str, int] = {}
        left_out: list[Reject] = []
        for column, said in rows[0].cells.items() if rows else ():
            if not said or column not in self._names:
                continue
            value = LABEL_VALUES.get(said)
            if value is not None:
                values[self._names[column]] = value
            else:
                detail = f"{column} is {said[:80]!r}, not 1, 0, -1 or empty"
                left_out.append(Reject(study_id, self._names[column], "label_unreadable", detail))
        return Labels(values, tuple(left_out))
