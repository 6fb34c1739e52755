"""The catalogue: DuckDB views over the Parquet shards and the manifests.

Views, not tables: DuckDB allows one writing process, while shards are written by many. A view
always shows what is in the store at that moment.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow import dataset as ds

from storage.schemas import SCHEMAS
from storage.store import Store, StoreError


class CatalogueError(Exception):
    """A query that cannot be run, or a shard that cannot be read."""


FILE = "catalogue.duckdb"

# By name, since shards of an earlier schema may lie beside new ones until they are built again.
_SHARDS = """
CREATE VIEW {table} AS
FROM read_parquet('{glob}', hive_partitioning = false, union_by_name = true)
"""

_ASSERTIONS = """
CREATE OR REPLACE VIEW assertions AS
SELECT p.*, coalesce(k.assertion, r.reason) AS assertion, k.study_id IS NOT NULL AS kept
FROM phrases p
LEFT JOIN positives k USING (dataset, split, study_id, section, start, target)
LEFT JOIN (FROM rejects WHERE stage = 'filter') r
    USING (dataset, split, study_id, section, start, target)
"""

_MANIFESTS = """
CREATE OR REPLACE VIEW manifests AS
SELECT part.dataset AS dataset, part.split AS split, part.index AS part, stage, unit, rows_in,
       rows_out, rejects, discarded, usage, seconds, finished_at, digest, recipe
FROM read_json('{glob}', union_by_name = true, columns = {{
    stage: 'VARCHAR', part: 'STRUCT(dataset VARCHAR, split VARCHAR, index INTEGER)',
    unit: 'VARCHAR', rows_in: 'BIGINT', rows_out: 'BIGINT', rejects: 'MAP(VARCHAR, BIGINT)',
    discarded: 'MAP(VARCHAR, BIGINT)', usage: 'MAP(VARCHAR, BIGINT)',
    seconds: 'DOUBLE', finished_at: 'VARCHAR', digest: 'VARCHAR', recipe: 'JSON'}})
"""


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """An in-memory connection with a view for every table that has shards.

    Raises:
        StoreError: if the store cannot be listed.
        CatalogueError: if a shard is damaged.
    """
    connection = duckdb.connect()
    tables = [table for table in SCHEMAS if store.list(table, ".parquet")]
    for table in tables:
        if store.is_local:
            glob = _quote(store.location(f"{table}/**/*.parquet"))
            with _readable(table):
                connection.execute(_SHARDS.format(table=table, glob=glob))
        else:
            filesystem, base = store.filesystem()
            files = [f"{base}/{path}" for path in store.list(table, ".parquet")]
            connection.register(table, ds.dataset(files, filesystem=filesystem))
    if {"phrases", "positives", "rejects"} <= set(tables):
        # Rejects of an earlier schema alone have no key columns: the other views serve without it.
        with _readable("rejects"):
            columns = set(connection.table("rejects").columns)
        if {"section", "start"} <= columns:
            with _readable("rejects"):
                connection.execute(_ASSERTIONS)
    if store.is_local and store.list("manifests", ".json"):
        glob = _quote(store.location("manifests/**/*.json"))
        connection.execute(_MANIFESTS.format(glob=glob))
    return connection


def query_rows(root: str, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query over the store.

    Raises:
        CatalogueError: if DuckDB does not accept the query.
    """
    with connect(Store(root)) as connection:
        try:
            result = connection.execute(query)
        except duckdb.Error as error:
            raise CatalogueError(f"the query cannot be run: {error}") from error
        if result is None or result.description is None:
            raise CatalogueError("the query is empty: give one, such as `SHOW TABLES`")
        return [column[0] for column in result.description or ()], result.fetchall()


def study_rows(root: str, table: str, study_id: str) -> list[dict[str, Any]]:
    """The rows of one study in a table; empty when the store has no such table yet."""
    store = Store(root)
    if not store.list(table, ".parquet"):
        return []
    with connect(store) as connection, _readable(table):
        rows = connection.table(table).filter(f"study_id = '{_quote(study_id)}'")
        return list(rows.to_arrow_table().to_pylist())


def read_reports(root: str, dataset: str) -> dict[str, pa.Table]:
    """The reports of a dataset, by table: studies, texts, phrases, positives.

    The studies are all of them, also those whose report cleaning rejected.

    Raises:
        StoreError: if the store does not hold the dataset.
    """
    store = Store(root)
    if not store.list(f"positives/dataset={dataset}", ".parquet"):
        raise StoreError(f"{root} does not hold {dataset}: run `vividmed build {dataset}` first")
    tables = ("studies", "clean_reports", "phrases", "positives")
    with connect(store) as connection, _readable(", ".join(tables)):
        views = {
            table: connection.table(table).filter(f"dataset = '{_quote(dataset)}'")
            for table in tables
        }
        return {table: rows.to_arrow_table() for table, rows in views.items()}


def write_catalogue(store: Store) -> Path | None:
    """Leave the views in `catalogue.duckdb` for any DuckDB client; None for a bucket.

    The file is replaced whole, so a reader that has the old one open is not disturbed.
    """
    if not store.is_local:
        return None
    target = Path(store.location(FILE))
    partial = target.with_name(f".{FILE}.{uuid.uuid4().hex}")
    with connect(store) as views:
        statements = views.execute(
            "SELECT sql FROM duckdb_views() WHERE NOT internal ORDER BY view_oid"
        ).fetchall()
    with duckdb.connect(os.fspath(partial)) as connection:
        for (statement,) in statements:
            connection.execute(statement)
    partial.replace(target)
    return target


@contextmanager
def _readable(table: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise CatalogueError(
            f"a shard of {table} is damaged or out of date ({reason}): `vividmed build` of its "
            "dataset makes it again"
        ) from error


def _quote(text: str) -> str:
    return text.replace("'", "''")
