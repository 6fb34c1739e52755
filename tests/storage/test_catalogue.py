"""The catalogue: what can be asked of a store, and what cannot."""

import shutil
from pathlib import Path

import duckdb
import pytest

from storage.catalogue import (
    CatalogueError,
    connect,
    query_rows,
    read_reports,
    study_rows,
    write_catalogue,
)
from storage.manifests import Manifest, write_manifest
from storage.records import SiteKey
from storage.rejects import Reject, rejects_table
from storage.shards import Part, shard_path, table_from_rows, write_shard
from storage.store import Store
from storage.tables import open_tables
from tests.storage.stores import write_part

PART = Part("openi", "train", 0)
KEY = {"dataset": "openi", "split": "train", "study_id": "CXR1", "section": "findings"}
WORDS = {"category": "abnormality", "modifiers": {"laterality": None, "zones": [], "count": None}}
EFFUSION = KEY | WORDS | {"start": 3, "end": 11, "phrase": "effusion", "target": "pleural effusion"}
NODULE = KEY | WORDS | {"start": 20, "end": 26, "phrase": "nodule", "target": "lung nodule"}
REJECT = Reject(
    "CXR1", "the effusion", "absent", "effusion is absent",
    site=SiteKey("pleural effusion"), section="findings", start=3,
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "it's a store"))  # a quote must not end the SQL string
    rows = {
        "phrases": table_from_rows("phrases", [EFFUSION, NODULE]),
        "positives": table_from_rows("positives", [NODULE | {"assertion": "present"}]),
        "boxes": table_from_rows("boxes", []),
        "rejects": rejects_table(PART, "filter", [REJECT]),
    }
    outputs = {
        table: write_shard(store, shard_path(table, PART, "filter"), table, shard)
        for table, shard in rows.items()
    }
    write_manifest(store, Manifest("filter", PART, "d", {"v": 1}, {}, outputs, "phrase", 1, 1))
    return store


def _shard(store: Store, table: str) -> Path:
    return Path(store.location(shard_path(table, PART, "filter")))


def test_assertions_of_kept_and_rejected_phrases_stand_side_by_side(store: Store) -> None:
    columns, rows = query_rows(
        store.root, "SELECT phrase, assertion, kept FROM assertions ORDER BY start"
    )
    assert columns == ["phrase", "assertion", "kept"]
    assert rows == [("effusion", "absent", False), ("nodule", "present", True)]


def test_manifests_can_be_queried(store: Store) -> None:
    query = "SELECT stage, unit, rows_in, rows_out, recipe->>'v' FROM manifests"
    assert query_rows(store.root, query)[1] == [("filter", "phrase", 1, 1, "1")]


def test_a_table_without_rows_has_its_columns(store: Store) -> None:
    assert query_rows(store.root, "SELECT x_min, zones FROM boxes") == (["x_min", "zones"], [])
    with pytest.raises(CatalogueError, match="masks"):
        query_rows(store.root, "FROM masks")


@pytest.mark.parametrize("name", ["a*b", "a[1]", "a?", "a'b", "it is", "é%20", "{a,b}", "a\\b"])
def test_the_path_of_a_store_is_no_pattern(tmp_path: Path, name: str) -> None:
    for place, study in ((name, "own"), ("aXb", "sibling"), ("a1", "sibling"), ("a", "sibling")):
        write_part(Store(str(tmp_path / place)), PART, [study])
    store = Store(str(tmp_path / name))
    ids = "SELECT study_id FROM grounded_reports"
    assert query_rows(store.root, ids)[1] == [("own",)]
    assert [row["study_id"] for row in study_rows(store.root, "boxes", "own")] == ["own"]
    assert study_rows(store.root, "boxes", "sibling") == []
    assert read_reports(store.root, "openi")["positives"]["study_id"].to_pylist() == ["own"]
    path = write_catalogue(store)
    assert path is not None
    # DuckDB opens no database in a folder of some of these names.
    copy = shutil.copyfile(path, tmp_path / "copy.duckdb")
    with duckdb.connect(str(copy), read_only=True) as client:
        assert client.sql(ids).fetchall() == [("own",)]


def test_the_catalogue_file_works_without_this_project(store: Store) -> None:
    path = write_catalogue(store)
    assert path is not None
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM assertions").fetchall() == [(2,)]
        assert connection.sql("SELECT x_min FROM boxes").fetchall() == []
        assert connection.sql("SELECT stage FROM manifests").fetchall() == [("filter",)]
        with connect(store) as own:
            for table in ("phrases", "positives", "boxes", "rejects", "assertions", "manifests"):
                described = f"SELECT column_name, column_type FROM (DESCRIBE {table})"
                fields = own.sql(described).fetchall()
                assert connection.sql(described).fetchall() == fields, table
    write_catalogue(store)  # replaced while nobody minds
    assert [p.name for p in path.parent.rglob("*duckdb*")] == ["catalogue.duckdb"]


def test_a_moved_store_is_read_and_its_file_written_again(store: Store, tmp_path: Path) -> None:
    write_catalogue(store)
    moved = Store(str(Path(store.root).rename(tmp_path / "moved")))
    assert len(query_rows(moved.root, "FROM phrases")[1]) == 2
    path = Path(moved.location("catalogue.duckdb"))
    count = "SELECT count(*) FROM phrases"
    with duckdb.connect(str(path)) as old, pytest.raises(duckdb.IOException):
        old.sql(count).fetchall()
    write_catalogue(moved)
    with duckdb.connect(str(path)) as new:
        assert new.sql(count).fetchall() == [(2,)]


@pytest.mark.parametrize(
    "query",
    [
        "COPY phrases TO '{folder}/out.csv'",
        "COPY (FROM phrases) TO '{folder}/out.parquet' (FORMAT parquet)",
        "ATTACH '{folder}/other.duckdb'",
        "EXPORT DATABASE '{folder}/out'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PRAGMA enable_profiling",
        "CREATE TABLE mine AS FROM phrases",
        "DROP VIEW phrases",
        "DELETE FROM phrases",
        "EXPLAIN ANALYZE COPY phrases TO '{folder}/out.csv'",
        "FROM read_csv('{folder}/secret.csv')",
        "FROM read_text('{folder}/secret.csv')",
        "FROM glob('{folder}/*')",
        "FROM '{folder}/secret.csv'",
        "FROM read_parquet('https://example.org/x.parquet')",
        "SELECT 1; COPY phrases TO '{folder}/out.csv'",
        "FROM tables",
        "  ",
    ],
)
def test_a_query_reads_the_store_and_nothing_else(store: Store, tmp_path: Path, query: str) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(CatalogueError):
        query_rows(store.root, query.format(folder=tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["it's a store", "secret.csv"]


def test_rows_of_one_study(store: Store) -> None:
    assert [row["phrase"] for row in study_rows(store.root, "positives", "CXR1")] == ["nodule"]
    assert study_rows(store.root, "positives", "o'brien") == []
    assert study_rows(store.root, "masks", "CXR1") == []


def test_a_bad_query_is_one_error(store: Store) -> None:
    with pytest.raises(CatalogueError, match="cannot be run"):
        query_rows(store.root, "SELECT nothing FROM nowhere")


@pytest.mark.parametrize("damage", ["cut", "gone", "page"])
def test_a_damaged_shard_blocks_its_own_table_and_is_named(store: Store, damage: str) -> None:
    file = _shard(store, "phrases")
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:100])
    elif damage == "page":
        file.write_bytes(content[:4] + b"\0" * 400 + content[404:])
    else:
        file.unlink()
    named = rf"shard .*{file.name} is damaged or gone: `vividmed build` of openi makes it again"
    for query in ("FROM phrases", "SELECT * FROM assertions"):
        with pytest.raises(CatalogueError, match=named):
            query_rows(store.root, query)
    with pytest.raises(CatalogueError, match=named):
        read_reports(store.root, "openi")
    assert query_rows(store.root, "SELECT phrase FROM positives")[1] == [("nodule",)]
    assert study_rows(store.root, "positives", "CXR1")
    if damage == "page":
        return  # a view of DuckDB looks at the ends of its files only
    with pytest.raises(CatalogueError, match=named):
        write_catalogue(store)
    with duckdb.connect(store.location("catalogue.duckdb"), read_only=True) as views:
        assert views.sql("SELECT phrase FROM positives").fetchall() == [("nodule",)]


def test_a_study_is_found_beside_a_damaged_shard(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for index, study in enumerate(("a", "b")):
        write_part(store, Part("openi", "train", index), [study])
    Path(store.location("grounded_reports/openi/part-00000.parquet")).write_bytes(b"PAR1")
    rows, damaged = open_tables(store).rows_of_study("grounded_reports", "b")
    assert [row["study_id"] for row in rows] == ["b"]
    assert [shard.part.index for shard in damaged] == [0]
    with pytest.raises(CatalogueError, match=r"part-00000\.parquet is damaged or gone"):
        study_rows(store.root, "grounded_reports", "a")


def test_a_file_that_no_manifest_lists_is_not_read(store: Store) -> None:
    stray = _shard(store, "phrases").with_name("part-00007.parquet")
    stray.write_bytes(_shard(store, "phrases").read_bytes())
    assert len(query_rows(store.root, "FROM phrases")[1]) == 2
