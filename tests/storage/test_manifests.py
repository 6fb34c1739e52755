import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.manifests import (
    Manifest,
    is_complete,
    manifest_path,
    read_manifest,
    read_manifests,
    recipe_digest,
    write_manifest,
)
from storage.schemas import SCHEMAS
from storage.shards import (
    Part,
    ShardFile,
    is_intact,
    read_shard,
    shard_path,
    table_from_rows,
    write_shard,
)
from storage.store import Store, StoreError

PART = Part("openi", "train", 7)


def _shard(store: Store, text: str = "Clear lungs.") -> ShardFile:
    row = {"dataset": "openi", "split": "train", "study_id": "CXR1", "findings": text}
    rows = table_from_rows("clean_reports", [row])
    return write_shard(store, shard_path("clean_reports", PART, "clean"), "clean_reports", rows)


def _manifest(shard: ShardFile) -> Manifest:
    return Manifest(
        stage="clean",
        part=PART,
        digest="d",
        recipe={"engine": {"name": "rules"}},
        inputs={"ingest.studies": "s"},
        outputs={"clean_reports": shard},
        unit="report",
        rows_in=3,
        rows_out=1,
        rejects={"no_findings": 2},
    )


def test_a_shard_carries_its_schema_with_units_and_is_plain_parquet(tmp_path: Path) -> None:
    shard = _shard(Store(str(tmp_path)))
    table = pq.read_table(tmp_path / shard.path)
    assert table.schema.equals(SCHEMAS["clean_reports"])
    for field in SCHEMAS["clean_reports"]:
        assert table.schema.field(field.name).metadata.items() >= field.metadata.items()
    assert table.column("findings").to_pylist() == ["Clear lungs."]
    assert shard.path == "clean_reports/openi/part-00007.parquet"


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    manifest = _manifest(_shard(store))
    write_manifest(store, manifest)
    assert read_manifest(store, "clean", PART) == manifest
    assert read_manifests(store, "openi") == [manifest]
    assert read_manifests(store, "open") == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"stage": "clean"}', b"\xff"])
def test_a_damaged_manifest_counts_as_none(tmp_path: Path, damage: bytes) -> None:
    store = Store(str(tmp_path))
    store.write(manifest_path("clean", PART), damage)
    assert read_manifest(store, "clean", PART) is None
    assert read_manifests(store) == []


@pytest.mark.parametrize(
    "edit",
    [
        {"outputs": {}},
        {"rows_out": "abc"},
        {"rows_out": 2},
        {"stage": "extract"},
        {"rows_in": -1, "rows_out": -3},
        {"rows_in": 10**30, "rows_out": 10**30 - 2},
        {"usage": {"tokens_in": -7}},
        {"usage": {"tokens_in": 10**30}},
        {"seconds": -1.0},
        {"part": {"dataset": "openi", "split": "train", "index": -7}},
        {"outputs": {"clean_reports": {"path": "../elsewhere", "sha256": "0", "rows": 1}}},
    ],
)
def test_an_edited_manifest_counts_as_none(tmp_path: Path, edit: dict[str, object]) -> None:
    store = Store(str(tmp_path))
    write_manifest(store, _manifest(_shard(store)))
    path = manifest_path("clean", PART)
    content = json.loads(store.read(path) or b"")
    store.write(path, json.dumps(content | edit).encode())
    assert read_manifest(store, "clean", PART) is None
    assert read_manifests(store) == []


def test_counters_of_another_version_are_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    manifest = replace(_manifest(_shard(store)), usage={"a_counter_of_another_version": 3})
    write_manifest(store, manifest)
    assert read_manifest(store, "clean", PART) == manifest


def test_no_rows_are_no_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    path = shard_path("clean_reports", PART, "clean")
    _shard(store)
    empty = write_shard(store, path, "clean_reports", SCHEMAS["clean_reports"].empty_table())
    assert store.list("") == []
    assert is_intact(store, empty)
    assert read_shard(store, empty).schema.equals(SCHEMAS["clean_reports"])
    store.write(path, b"")
    assert not is_intact(store, empty)


def test_a_lost_or_changed_file_is_noticed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    manifest = _manifest(_shard(store))
    assert is_complete(store, manifest)
    other = _shard(store, "Another run wrote this.")
    assert other.sha256 != manifest.outputs["clean_reports"].sha256
    assert not is_complete(store, manifest)
    with pytest.raises(StoreError, match="removed or replaced"):
        read_shard(store, manifest.outputs["clean_reports"])
    (tmp_path / other.path).unlink()
    assert not is_complete(store, manifest)


texts = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4)


@given(recipe=texts, inputs=texts)
def test_the_digest_depends_on_content_not_on_order(
    recipe: dict[str, str], inputs: dict[str, str]
) -> None:
    digest = recipe_digest("clean", recipe, inputs)
    reordered = dict(reversed(recipe.items())), dict(reversed(inputs.items()))
    assert recipe_digest("clean", *reordered) == digest
    assert recipe_digest("extract", recipe, inputs) != digest
    assert recipe_digest("clean", recipe | {"new": "setting"}, inputs) != digest
