"""The rows of a table by a key, put aside on disk by one pass over the table.

Data sets come as tables of images, labels and reports that are joined by study or image, with
hundreds of thousands of rows. They stay on disk, so that memory does not grow with them.
"""

from __future__ import annotations

import marshal
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator
from difflib import get_close_matches
from pathlib import Path
from threading import Lock
from typing import Any

from storage.datasets.reader import DatasetError
from storage.datasets.rows import USUAL, Row, TextForm, read_rows

_CACHE_KIB = 16 * 1024
"""What SQLite keeps of an index in memory."""

_KEYS_AT_ONCE = 10_000


class NoRoomError(DatasetError):
    """Rows cannot be put aside, whatever the table holds."""


class RowIndex:
    """The rows of one table by the value of a key. Several threads may read at once."""

    def __init__(
        self,
        table: Path,
        key: str | Callable[[Row], str],
        columns: Collection[str],
        optional: Collection[str] = (),
        form: TextForm = USUAL,
    ) -> None:
        """Read the table once, to its end.

        Args:
            table: a file that `read_rows` reads.
            key: the column that rows are found by, or what makes the key of a row.
            columns: those that are kept; the table must have them.
            optional: further ones to keep; empty text where the table does not have them.
            form: of a table of text.

        Raises:
            DatasetError: if the table cannot be read, holds no rows or lacks a column.
        """
        self.table = table
        self._form = form
        self.columns: tuple[str, ...] = ()
        self._names = tuple(dict.fromkeys((*columns, *optional)))
        self._lock = Lock()
        # without a name: a file that SQLite makes when memory is full, and removes
        self._rows = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        key_of = key if callable(key) else lambda row: row.cells.get(key, "")
        try:
            self._rows.execute("CREATE TABLE rows (place INTEGER PRIMARY KEY, key, row)")
            self._rows.execute("BEGIN")
            self._rows.executemany("INSERT INTO rows (key, row) VALUES (?, ?)", self._read(key_of))
            self._rows.execute("CREATE INDEX by_key ON rows (key)")
            self._rows.execute("CREATE TABLE keys (place INTEGER PRIMARY KEY, key)")
            self._rows.execute(
                "INSERT INTO keys (key) SELECT key FROM rows GROUP BY key ORDER BY min(place)"
            )
            self._rows.execute("COMMIT")
        except sqlite3.Error as error:
            raise _no_room(error) from error
        if not len(self):
            raise DatasetError(f"{table} holds no rows")
        for name in columns:
            self._require(name)

    def _read(self, key_of: Callable[[Row], str]) -> Iterator[tuple[str, bytes]]:
        columns: dict[str, None] = {}
        for row in read_rows(self.table, self._form):
            if row.cells.keys() != columns.keys():
                columns |= dict.fromkeys(row.cells)
            cells = {name: row.cells[name] for name in self._names if name in row.cells}
            yield key_of(row), marshal.dumps((row.number, cells, row.fault, row.too_large))
        self.columns = tuple(columns)

    def _require(self, name: str) -> None:
        if name not in self.columns:
            near = get_close_matches(name, self.columns, 1)
            meant = "".join(f", perhaps `{other}` was meant" for other in near)
            raise DatasetError(
                f"{self.table} has no column `{name}`{meant}; it has {', '.join(self.columns)}"
            )

    def keys(self) -> Iterator[str]:
        """Every key once, in the order of first mention."""
        last = 0
        query = "SELECT place, key FROM keys WHERE place > ? ORDER BY place LIMIT ?"
        while found := self._fetch(query, last, _KEYS_AT_ONCE):
            yield from (key for _, key in found)
            last = found[-1][0]

    def rows(self, key: str) -> list[Row]:
        """The rows of a key in the order of the table; none if it has no such key."""
        found = self._fetch("SELECT row FROM rows WHERE key = ? ORDER BY place", key)
        return [Row(*marshal.loads(row)) for (row,) in found]  # noqa: S302 written above

    def __contains__(self, key: str) -> bool:
        return bool(self._fetch("SELECT 1 FROM rows WHERE key = ? LIMIT 1", key))

    def __len__(self) -> int:
        """How many rows the table has."""
        return int(self._fetch("SELECT count(*) FROM rows")[0][0])

    def _fetch(self, query: str, *values: object) -> list[Any]:
        try:
            with self._lock:
                return self._rows.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _no_room(error) from error


def _no_room(error: sqlite3.Error) -> NoRoomError:
    return NoRoomError(
        f"rows cannot be put aside in {tempfile.gettempdir()}: {error}: free some space, or name "
        "another folder in the environment variable TMPDIR"
    )
