"""The files of a memory of answers: Parquet segments that never change and bear unique names.

Several processes may add to a folder at once, and none ever writes to a segment of another. Small
segments are put together as they become many: what was read is written again as one, and only then
taken away, so whatever happens an answer is there once or twice, never not at all.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from storage.store import Store
from tasks.engines.metering import consume

_SCHEMA = pa.schema([("key", pa.string()), ("answer", pa.large_string())])
_SMALL_ROWS = 20_000
_MANY = 64


class Segments:
    """The segments of one folder, as one process has read them."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._rows: dict[str, int] = {}
        self._damaged: set[str] = set()
        self._merging = threading.Lock()

    def append(self, answers: Mapping[str, str | None]) -> None:
        """Write a segment that this process knows already.

        Raises:
            StoreError: if the store cannot be written.
        """
        table = pa.table({"key": list(answers), "answer": list(answers.values())}, _SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        path = f"{self._folder}/{uuid.uuid4().hex}.parquet"
        self._store.write(path, sink.getvalue().to_pybytes())
        self._rows[path] = len(answers)

    def news(self) -> Iterator[pa.Table]:
        """The tables of segments that have come since the last time, by whichever process.

        A segment counts as read when its table was taken, that is when the next one is asked for;
        threads that look at the same time may get the same one. Damaged segments are tried again
        each time, and counted once, as `memory_damaged`.

        Raises:
            StoreError: if the store cannot be listed or read.
        """
        while True:
            merged_meanwhile = False
            for path in self._store.list(self._folder, ".parquet"):
                if path in self._rows:
                    continue
                content = self._store.read(path)
                if content is None:
                    merged_meanwhile = True  # into one that this listing does not have
                elif (table := _read(content)) is not None:
                    yield table
                    self._rows[path] = table.num_rows
                elif path not in self._damaged:
                    self._damaged.add(path)
                    consume(memory_damaged=1)
            if not merged_meanwhile:
                return

    def merge(self) -> None:
        """Put small segments together, if they are many; what fails is left to the next time.

        Raises:
            StoreError: if the store cannot be read or written.
        """
        small = [path for path, rows in self._rows.copy().items() if rows < _SMALL_ROWS]
        if len(small) < _MANY or not self._merging.acquire(blocking=False):
            return
        try:
            self._merge(small)
        finally:
            self._merging.release()

    def _merge(self, paths: list[str]) -> None:
        merged: dict[str, str | None] = {}
        read: list[str] = []
        for path in paths:
            table = _read(self._store.read(path) or b"")
            if table is not None:
                read.append(path)
                for key, answer in _rows(table):
                    if answer is None or key not in merged:  # None: asked to be forgotten
                        merged[key] = answer
        if merged:
            self.append(merged)
        filesystem, base = self._store.filesystem()
        for path in read:
            with suppress(OSError):  # another process that merges may have been quicker
                filesystem.delete_file(f"{base}/{path}")
        for path in paths:
            self._rows[path] = _SMALL_ROWS  # never again part of a merge


def _rows(table: pa.Table) -> Iterator[tuple[str, str | None]]:
    columns = (table.column(name).to_pylist() for name in ("key", "answer"))
    return ((key, answer) for key, answer in zip(*columns, strict=True) if key is not None)


def _read(content: bytes) -> pa.Table | None:
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
        return table.cast(_SCHEMA)
    except (pa.ArrowException, OSError, ValueError):
        return None
