"""Shards: one Parquet file per table, dataset, split and part, written whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.schemas import SCHEMAS
from storage.store import Store, StoreError


@dataclass(frozen=True, order=True)
class Part:
    """A shard's place in its dataset; every stage keeps the parts of the one before."""

    dataset: str
    split: str
    index: int

    @property
    def folder(self) -> str:
        """Hive-style folder of the part, below a table or a stage."""
        return f"dataset={self.dataset}/split={self.split}"

    @property
    def name(self) -> str:
        """File name without its suffix."""
        return f"part-{self.index:05d}"

    def __str__(self) -> str:
        return f"{self.dataset}/{self.split}/{self.name}"


@dataclass(frozen=True)
class ShardFile:
    """A written shard: its path in the store, the SHA-256 of its bytes, its rows."""

    path: str
    sha256: str
    rows: int


def shard_path(table: str, part: Part, stage: str) -> str:
    """Where a stage writes a shard; every stage has a `rejects` shard of its own."""
    suffix = f".{stage}" if table == "rejects" else ""
    return f"{table}/{part.folder}/{part.name}{suffix}.parquet"


def table_from_rows(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    """An Arrow table with the declared schema from plain Python rows."""
    return pa.Table.from_pylist(rows, schema=SCHEMAS[table])


def write_shard(store: Store, path: str, table: str, rows: pa.Table) -> ShardFile:
    """Write rows with the declared schema, zstd-compressed, atomically.

    Raises:
        StoreError: if the store cannot be written.
        pyarrow.ArrowInvalid: if the rows do not fit the schema, which is a bug of the step.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(rows.cast(SCHEMAS[table]), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    store.write(path, data)
    return ShardFile(path, hashlib.sha256(data).hexdigest(), rows.num_rows)


def is_intact(store: Store, shard: ShardFile) -> bool:
    """Whether the file is there with the bytes that were written."""
    data = store.read(shard.path)
    return data is not None and hashlib.sha256(data).hexdigest() == shard.sha256


def read_shard(store: Store, shard: ShardFile) -> pa.Table:
    """Read a shard that must still be the one that was written.

    Raises:
        StoreError: if it is gone or another run has replaced it.
    """
    data = store.read(shard.path)
    if data is None or hashlib.sha256(data).hexdigest() != shard.sha256:
        raise StoreError(
            f"{store.location(shard.path)} was removed or replaced while this run was reading it: "
            "run the same command again"
        )
    return pq.read_table(pa.BufferReader(data))
