from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from storage.catalogue import CatalogueError, query_rows, study_rows, write_catalogue
from storage.manifests import Manifest, write_manifest
from storage.records import SiteKey
from storage.rejects import Reject, rejects_table
from storage.shards import Part, shard_path, table_from_rows, write_shard
from storage.store import Store

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
        "rejects": rejects_table(PART, "filter", [REJECT]),
    }
    outputs = {
        table: write_shard(store, shard_path(table, PART, "filter"), table, shard)
        for table, shard in rows.items()
    }
    write_manifest(store, Manifest("filter", PART, "d", {}, {}, outputs, "phrase", 2, 1))
    return store


def test_assertions_of_kept_and_rejected_phrases_stand_side_by_side(store: Store) -> None:
    columns, rows = query_rows(
        store.root, "SELECT phrase, assertion, kept FROM assertions ORDER BY start"
    )
    assert columns == ["phrase", "assertion", "kept"]
    assert rows == [("effusion", "absent", False), ("nodule", "present", True)]


def test_rejects_of_an_earlier_schema_cost_only_the_view_that_joins_them(store: Store) -> None:
    path = Path(store.location(shard_path("rejects", PART, "filter")))
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["section", "start"]), path)
    assert query_rows(store.root, "SELECT reason FROM rejects")[1] == [("absent",)]
    assert study_rows(store.root, "phrases", "CXR1")
    with pytest.raises(CatalogueError, match="assertions"):
        query_rows(store.root, "SELECT * FROM assertions")


def test_manifests_can_be_queried(store: Store) -> None:
    _, rows = query_rows(store.root, "SELECT stage, unit, rows_in, rows_out FROM manifests")
    assert rows == [("filter", "phrase", 2, 1)]


def test_the_catalogue_file_works_without_this_project(store: Store) -> None:
    path = write_catalogue(store)
    assert path is not None
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM assertions").fetchall() == [(2,)]
    write_catalogue(store)  # replaced while nobody minds
    assert [p.name for p in path.parent.glob("*duckdb*")] == ["catalogue.duckdb"]


def test_pandas_and_polars_read_the_shards(store: Store) -> None:
    file = store.location(shard_path("phrases", PART, "extract"))
    assert pd.read_parquet(file, partitioning=None)["phrase"].tolist() == ["effusion", "nodule"]
    assert pl.read_parquet(file)["target"].to_list() == ["pleural effusion", "lung nodule"]


def test_rows_of_one_study(store: Store) -> None:
    assert [row["phrase"] for row in study_rows(store.root, "positives", "CXR1")] == ["nodule"]
    assert study_rows(store.root, "positives", "o'brien") == []
    assert study_rows(store.root, "boxes", "CXR1") == []


def test_a_bad_query_is_one_error(store: Store) -> None:
    with pytest.raises(CatalogueError, match="cannot be run"):
        query_rows(store.root, "SELECT nothing FROM nowhere")


def test_a_damaged_shard_is_one_sentence(store: Store) -> None:
    file = Path(store.location(shard_path("phrases", PART, "extract")))
    file.write_bytes(file.read_bytes()[:100])
    for read in (
        lambda: study_rows(store.root, "positives", "CXR1"),
        lambda: write_catalogue(store),
    ):
        with pytest.raises(
            CatalogueError, match=r"a shard of phrases is damaged or out of date .* makes it again"
        ):
            read()
