"""Shards: one Parquet file per table, dataset and part, written whole.

`<table>/<dataset>/part-00000.parquet`: the folder of a table holds nothing but Parquet files of one
schema, none of them without rows, and no name in a path says what a column says, too. So pandas,
pyarrow, polars, DuckDB and Hugging Face datasets all read it by its folder alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from storage.schemas import SCHEMAS
from storage.store import Store, StoreError

MOST_PARTS = 2**31
"""Parts of a dataset: a 32-bit column of the catalogue holds their number."""
MOST_ROWS = 2**40
"""Far more rows, tokens or microseconds than any shard has: a larger count is damage."""

Count = Annotated[int, Field(ge=0, lt=MOST_ROWS)]

_NO_ROWS = hashlib.sha256(b"no rows").hexdigest()
"""What stands for the digest of a shard without rows, which has no file."""

_SPLIT_WORDS = re.compile(
    r"(?<![^-._0-9])"
    r"(train|training|validation|valid|dev|val|test|testing|eval|evaluation)"
    r"(?![^-._0-9])"
)
"""Words for which Hugging Face datasets takes a folder for a split, and then leaves out all others:
`mimic-test` beside `openi` would hide openi. A `~` behind the word prevents it."""


@dataclass(frozen=True, order=True)
class Part:
    """A shard's place in its dataset; every stage keeps the parts of the one before.

    index: unique within the dataset, over all its splits.
    """

    dataset: str
    split: str
    index: Annotated[int, Field(ge=0, lt=MOST_PARTS)]

    @property
    def folder(self) -> str:
        """Folder of the part's dataset, below a table or a stage."""
        return dataset_folder(self.dataset)

    @property
    def name(self) -> str:
        """File name without its suffix."""
        return f"part-{self.index:05d}"

    def __str__(self) -> str:
        return f"{self.dataset}/{self.split}/{self.name}"


@dataclass(frozen=True)
class ShardFile:
    """A shard as it was written: its path in the store, the SHA-256 of its bytes, its rows.

    One without rows has no file.
    """

    path: str
    sha256: str
    rows: Count


def dataset_folder(dataset: str) -> str:
    """Name of a dataset's folder below a table or a stage."""
    return _SPLIT_WORDS.sub(r"\1~", dataset)


def shard_path(table: str, part: Part, stage: str) -> str:
    """Where a stage writes a shard; every stage has a `rejects` shard of its own."""
    suffix = f".{stage}" if table == "rejects" else ""
    return f"{table}/{part.folder}/{part.name}{suffix}.parquet"


def table_from_rows(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    """An Arrow table with the declared schema from plain Python rows."""
    return pa.Table.from_pylist(rows, schema=SCHEMAS[table])


def write_shard(store: Store, path: str, table: str, rows: pa.Table) -> ShardFile:
    """Write rows with the declared schema, zstd-compressed, atomically; no rows leave no file.

    Raises:
        StoreError: if the store cannot be written.
        pyarrow.ArrowInvalid: if the rows do not fit the schema, which is a bug of the step.
    """
    rows = rows.cast(SCHEMAS[table])
    if not rows.num_rows:
        store.delete(path)
        return ShardFile(path, _NO_ROWS, 0)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    store.write(path, data)
    return ShardFile(path, hashlib.sha256(data).hexdigest(), rows.num_rows)


def is_intact(store: Store, shard: ShardFile) -> bool:
    """Whether the file is there with the bytes that were written, or is none for no rows."""
    return _digest(store.read(shard.path)) == shard.sha256


def read_shard(store: Store, shard: ShardFile) -> pa.Table:
    """Read a shard that must still be the one that was written.

    Raises:
        StoreError: if it is gone or another run has replaced it.
    """
    data = store.read(shard.path)
    if _digest(data) != shard.sha256:
        raise StoreError(
            f"{store.location(shard.path)} was removed or replaced while this run was reading it: "
            "run the same command again"
        )
    return _table(shard.path, data)


def read_version(store: Store, path: str, sha256: str) -> pa.Table | None:
    """A shard as it was in some version that the store still has; None if it has none.

    Args:
        store: the store, or what is put in its place and the store.base.
        path: where the shard lives.
        sha256: of the version's bytes.
    """
    for place in (store, store.base):
        data = place.read(path)
        if _digest(data) == sha256:
            return _table(path, data)
    return None


def _table(path: str, data: bytes | None) -> pa.Table:
    if data is None:
        return SCHEMAS[path.split("/", maxsplit=1)[0]].empty_table()
    return pq.read_table(pa.BufferReader(data))


def _digest(data: bytes | None) -> str:
    return _NO_ROWS if data is None else hashlib.sha256(data).hexdigest()
