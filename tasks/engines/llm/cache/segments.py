"""The files of a response cache: immutable Parquet segments with unique names.

Several processes may add segments to a folder at once; none writes to a segment of another. When
small segments become many they are merged: the merged segment is written first and the small ones
are deleted after, so a crash in between leaves an answer twice, but never loses one.
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
_SMALL_SEGMENT_ROWS = 20_000
"""Answers; only segments with fewer are merged, so that a merge reads a bounded amount."""

_SEGMENTS_BEFORE_MERGE = 64
"""Small segments; a run appends one per chunk of requests, and each is a file to open at start."""


class Segments:
    """The segments of one folder, as one process has read them."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._rows: dict[str, int] = {}
        self._damaged: set[str] = set()
        self._merging = threading.Lock()

    def append(self, answers: Mapping[str, str | None]) -> None:
        """Write a segment; this process will not read it again. None invalidates an answer.

        Raises:
            StoreError: if the store cannot be written.
        """
        table = pa.table({"key": list(answers), "answer": list(answers.values())}, _SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        path = f"{self._folder}/{uuid.uuid4().hex}.parquet"
        self._store.write(path, sink.getvalue().to_pybytes())
        self._rows[path] = len(answers)

    def new_tables(self) -> Iterator[pa.Table]:
        """The tables of segments added since the last call, by any process.

        A segment counts as read once the caller asks for the next one; threads that iterate at
        the same time may get the same segment. Damaged segments are tried again on each call, and
        counted once, as `cache_damaged`.

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
                    merged_meanwhile = True  # into a segment that this listing lacks
                elif (table := _read(content)) is not None:
                    yield table
                    self._rows[path] = table.num_rows
                elif path not in self._damaged:
                    self._damaged.add(path)
                    consume(cache_damaged=1)
            if not merged_meanwhile:
                return

    def merge(self) -> None:
        """Merge small segments if there are many of them.

        Raises:
            StoreError: if the store cannot be read or written.
        """
        small = [path for path, rows in self._rows.copy().items() if rows < _SMALL_SEGMENT_ROWS]
        if len(small) < _SEGMENTS_BEFORE_MERGE or not self._merging.acquire(blocking=False):
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
                    if answer is None or key not in merged:  # None: invalidated
                        merged[key] = answer
        if merged:
            self.append(merged)
        filesystem, base = self._store.filesystem()
        for path in read:
            with suppress(OSError):  # another process may have merged it too
                filesystem.delete_file(f"{base}/{path}")
        for path in paths:
            self._rows[path] = _SMALL_SEGMENT_ROWS  # never merge it again


def _rows(table: pa.Table) -> Iterator[tuple[str, str | None]]:
    columns = (table.column(name).to_pylist() for name in ("key", "answer"))
    return ((key, answer) for key, answer in zip(*columns, strict=True) if key is not None)


def _read(content: bytes) -> pa.Table | None:
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
        return table.cast(_SCHEMA)
    except (pa.ArrowException, OSError, ValueError):
        return None
