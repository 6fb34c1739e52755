"""The catalogue: a DuckDB view of every table, of the manifests, and of assertions.

Views of Arrow datasets, so that DuckDB itself opens no file and may be denied all files: a query
can read the store and nothing else. `catalogue.duckdb` has the same views for any DuckDB client.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from storage.store import PARTIAL, Store, StoreError
from storage.sweeping import nothing_held
from storage.tables import ShardError, Tables, open_tables


class CatalogueError(Exception):
    """A query that cannot be run, or a shard that cannot be read."""


FILE = "catalogue.duckdb"

_LOCKED = (
    "SET enable_external_access = false",  # no other file, no network, no COPY TO, no ATTACH
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET python_enable_replacements = false",  # a name in a query is no variable of this program
    "SET lock_configuration = true",
)

_READING = {"SELECT", "EXPLAIN", "MULTI"}
"""Kinds of statements that only read, as DuckDB names them; PIVOT is a MULTI."""

_STREAM = re.compile(r"stream registered as '(\w+)' failed")
"""What DuckDB says of a table whose Arrow dataset cannot be read."""

_ROWS_AT_ONCE = 1000
"""Rows of a result that are in memory at a time."""

_ASSERTIONS = """
CREATE VIEW assertions AS
SELECT p.*, coalesce(k.assertion, r.reason) AS assertion, k.study_id IS NOT NULL AS kept
FROM phrases p
LEFT JOIN positives k USING (dataset, split, study_id, section, start, target)
LEFT JOIN (FROM rejects WHERE stage = 'filter') r
    USING (dataset, split, study_id, section, start, target)
"""
_JOINED = ("phrases", "positives", "rejects")

_COUNTS = pa.map_(pa.string(), pa.int64())
_MANIFESTS = pa.schema(
    [
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("part", pa.int32()),
        ("stage", pa.string()),
        ("unit", pa.string()),
        ("rows_in", pa.int64()),
        ("rows_out", pa.int64()),
        ("rejects", _COUNTS),
        ("discarded", _COUNTS),
        ("usage", _COUNTS),
        ("seconds", pa.float64()),
        ("finished_at", pa.string()),
        ("digest", pa.string()),
        ("recipe", pa.json_()),
    ]
)


@dataclass(frozen=True)
class Result:
    """The columns of a query's result, and its rows as they come.

    columns: several may have the same name.
    incomplete: what the store lacks of its datasets, a line each.
    """

    columns: Sequence[str]
    rows: Iterator[tuple[Any, ...]]
    incomplete: Sequence[str] = ()


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """An in-memory connection with a view of every table; it can reach no file by itself.

    Raises:
        StoreError: if the store cannot be read.
    """
    return _connect(open_tables(store))


@contextmanager
def run_query(root: str | Store, query: str) -> Iterator[Result]:
    """Run one query that reads the store; its rows come a thousand at a time.

    Args:
        root: the store's root, or the store, such as one at an earlier version.
        query: one that only reads.

    Raises:
        StoreError: if the store cannot be read or holds nothing.
        CatalogueError: if the query is none, does more than read, or meets a damaged shard or, in
            a bucket, the switch to a new version.
    """
    with _queried(root, query) as (result, tables):
        columns = [column[0] for column in result.description or ()]
        yield Result(columns, _rows(result), tables.incomplete)


def query_rows(root: str | Store, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and all rows of a query; see `run_query`."""
    with run_query(root, query) as result:
        return list(result.columns), list(result.rows)


def query_table(root: str | Store, query: str) -> pa.Table:
    """The answer of a query as an Arrow table; see `run_query`."""
    with _queried(root, query) as (result, _), warnings.catch_warnings():
        # DuckDB would rather make a relation of the query, which not every query is.
        warnings.filterwarnings("ignore", "Arrow output on a DB-API result", UserWarning)
        return result.to_arrow_table()


@contextmanager
def _queried(root: str | Store, query: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, Tables]]:
    _require_reading(query)
    tables = open_tables(_opened(root))
    if not tables.shards:
        raise nothing_held(tables.store)
    places = tables.places()
    with _connect(tables) as connection:
        try:
            yield connection.execute(query), tables
        except RuntimeError as error:
            if "Query interrupted" in str(error):  # how DuckDB passes Ctrl-C on
                raise KeyboardInterrupt from error
            raise
        except duckdb.Error as error:
            _require_unmoved(tables, places)
            raise _fault(tables, error) from error
    _require_unmoved(tables, places)


def _require_unmoved(tables: Tables, places: list[str]) -> None:
    if tables.places() != places:
        raise CatalogueError(
            f"a new version became current in {tables.store.root} while the query ran: run it again"
        )


def _opened(root: str | Store) -> Store:
    return root if isinstance(root, Store) else Store(root)


def study_rows(root: str | Store, table: str, study_id: str) -> list[dict[str, Any]]:
    """The rows of one study in a table; empty when the store has no such table yet.

    Raises:
        CatalogueError: if a shard that may hold the study is damaged.
    """
    tables = open_tables(_opened(root))
    rows, damaged = tables.rows_of_study(table, study_id)
    if damaged and not rows:
        raise CatalogueError(tables.sentence(damaged[0]))
    return rows


def read_reports(root: str | Store, dataset: str) -> dict[str, pa.Table]:
    """The reports of a dataset, by table: studies, texts, phrases, positives.

    The studies are all of them, also those whose report cleaning rejected.

    Raises:
        StoreError: if the store does not hold the dataset.
        CatalogueError: if a shard is damaged.
    """
    tables = open_tables(_opened(root), dataset)
    if "positives" not in tables.shards:
        raise nothing_held(tables.store, dataset)
    try:
        return {
            table: tables.read(table, dataset)
            for table in ("studies", "clean_reports", "phrases", "positives")
        }
    except ShardError as error:
        raise CatalogueError(str(error)) from error


def write_catalogue(store: Store) -> Path | None:
    """Leave the views in `catalogue.duckdb` for any DuckDB client; None for a bucket.

    The views name the shards by their full paths, as DuckDB wants them: after a move of the store
    they are written again. The file is replaced whole, so a reader that has the old one open is not
    disturbed.

    Raises:
        StoreError: if the store cannot be read or written.
        CatalogueError: if a shard is damaged; the views of the other tables are written.
    """
    if not store.is_local:
        return None
    tables = open_tables(store)
    target = Path(store.location(FILE))
    partial = Path(store.location(PARTIAL)) / f"{FILE}.{uuid.uuid4().hex}"
    # DuckDB cannot make a database in a folder with a ? or a backslash in its name.
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / FILE
        damaged = _write_views(tables, made)
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made, partial)
            partial.replace(target)
        except OSError as error:
            raise StoreError(f"{target} cannot be written: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)
    if damaged is not None:
        raise CatalogueError(str(damaged)) from damaged
    return target


def _write_views(tables: Tables, file: Path) -> ShardError | None:
    """Write all views that can be written; the damaged shard of one that cannot, if any."""
    damaged = None
    with _connect(tables) as views, duckdb.connect(str(file)) as written:
        for table in tables.shards:
            try:
                written.execute(_view(tables, table, views))
            except duckdb.Error as error:
                damaged = tables.fault(tables.shards[table], error)
        if _has_assertions(tables) and damaged is None:
            written.execute(_ASSERTIONS)
        written.register("held", _manifest_rows(tables))
        written.execute("CREATE TABLE manifests AS FROM held")
    return damaged


def _connect(tables: Tables) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for table in tables.shards:
        connection.register(table, tables.dataset(table))
    connection.register("manifests", _manifest_rows(tables))
    if _has_assertions(tables):
        connection.execute(_ASSERTIONS)
    for setting in _LOCKED:
        connection.execute(setting)
    return connection


def _has_assertions(tables: Tables) -> bool:
    return all(table in tables.shards for table in _JOINED)


def _manifest_rows(tables: Tables) -> pa.Table:
    rows = [
        {name: getattr(m, name, None) for name in _MANIFESTS.names}
        | {"dataset": m.part.dataset, "split": m.part.split, "part": m.part.index}
        | {name: list(getattr(m, name).items()) for name in ("rejects", "discarded", "usage")}
        | {"recipe": json.dumps(m.recipe, sort_keys=True, ensure_ascii=False)}
        for m in tables.manifests
    ]
    return pa.Table.from_pylist(rows, schema=_MANIFESTS)


def _require_reading(query: str) -> None:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise CatalogueError(f"the query cannot be run: {error}") from error
    if not statements:
        raise CatalogueError("the query is empty: give one, such as `SHOW TABLES`")
    if len(statements) > 1:
        raise CatalogueError(f"these are {len(statements)} queries: give one at a time")
    kind = statements[0].type.name
    if kind not in _READING:
        raise CatalogueError(
            f"`vividmed sql` only reads, and {kind} may change something: begin with SELECT, FROM, "
            f"WITH, PIVOT, SHOW, DESCRIBE, SUMMARIZE or EXPLAIN; any DuckDB client does the rest "
            f"with {FILE}"
        )


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(_ROWS_AT_ONCE):
        yield from rows


def _fault(tables: Tables, error: duckdb.Error) -> CatalogueError:
    """The damaged shard that a query met, or else what DuckDB says of the query."""
    if met := _STREAM.search(str(error)):
        return CatalogueError(str(tables.fault(tables.shards.get(met[1], ()), error)))
    return CatalogueError(f"the query cannot be run: {error}")


def _view(tables: Tables, table: str, views: duckdb.DuckDBPyConnection) -> str:
    """The statement of a view that any DuckDB client can read: files by their full paths."""
    places = tables.places(tables.shards[table])
    files = [_literal(tables.store.location(place)) for place in places]
    described = views.execute(f"DESCRIBE {table}").fetchall()
    columns = [f'CAST("{name}" AS {type_}) AS "{name}"' for name, type_, *_ in described]
    if not files:
        columns = [f'CAST(NULL AS {type_}) AS "{name}"' for name, type_, *_ in described]
        return f"CREATE VIEW {table} AS SELECT {', '.join(columns)} WHERE false"
    # By name, since shards of an earlier schema may lie beside new ones until they are built again.
    return (  # of names that are declared here, and paths that are quoted
        f"CREATE VIEW {table} AS SELECT {', '.join(columns)} FROM read_parquet("  # noqa: S608
        f"[{', '.join(files)}], hive_partitioning = false, union_by_name = true)"
    )


def _literal(path: str) -> str:
    """A path as a string of SQL that DuckDB takes for no pattern of paths."""
    plain = "".join(f"[{c}]" if c in "*?[" else c for c in path)
    return "'" + plain.replace("'", "''") + "'"
