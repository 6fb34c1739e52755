"""What is removed from a store after a run, and what never is."""

import os
import time
from pathlib import Path

import pytest

from storage.plans import Plan, write_plan
from storage.shards import Part
from storage.store import Store
from storage.sweeping import has_earlier_layout, nothing_held, sweep
from tests.storage.stores import STAGES, write_part

HEX = "0123456789abcdef" * 2
PLAN = Plan("openi", tuple(STAGES), {"part-00000": "r"})
OLD, YOUNG = 7200, 60


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    write_plan(store, PLAN)
    write_part(store, Part("openi", "train", 0), ["a"])
    write_part(store, Part("openi-2", "train", 9), ["a"])
    return store


def _left(store: Store, path: str, seconds: int) -> str:
    """A file that was left behind some seconds ago."""
    store.write(path, b"left")
    when = time.time() - seconds
    os.utime(store.location(path), (when, when))
    return path


def test_what_was_left_goes_and_nothing_else(store: Store) -> None:
    kept = {*store.list("")}
    kept |= {
        _left(store, path, OLD)
        for path in (
            "notes.txt",
            "studies/openi/README.md",
            "studies/openi/part-00000.csv",
            "my/part-00007.parquet",
            "boxes/openi-2/part-00010.parquet",
            "phrases/dataset=openi-2/split=train/part-00000.parquet",
            f"answers/{HEX}/part-00000.parquet",
        )
    }
    kept |= {
        _left(store, f".partial/part-00000.parquet.{HEX}", YOUNG),
        _left(store, "rejects/openi/part-00000.newer.parquet", YOUNG),
    }
    left = [
        _left(store, f".partial/part-00001.parquet.{HEX}", OLD),
        _left(store, f".partial/catalogue.duckdb.{HEX}", OLD),
        _left(store, f".probe-{HEX}", OLD),
        _left(store, f"studies/openi/.part-00000.parquet.{HEX}", OLD),
        _left(store, "studies/openi/part-00001.parquet", YOUNG),
        _left(store, "rejects/openi/part-00001.clean.parquet", YOUNG),
        _left(store, "manifests/clean/openi/part-00001.json", YOUNG),
        _left(store, "rejects/openi/part-00000.renamed_stage.parquet", OLD),
        _left(store, "studies/dataset=openi/split=train/part-00000.parquet", YOUNG),
        _left(store, "manifests/clean/dataset=openi/split=train/part-00000.json", YOUNG),
    ]
    assert sorted(sweep(store, PLAN)) == sorted(left)
    assert {*store.list("")} == kept
    assert sweep(store, PLAN) == []


def test_a_store_of_an_earlier_layout_says_so(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert str(nothing_held(store, "openi")).endswith(
        "holds no openi yet: run `vividmed build openi` first"
    )
    store.write("manifests/clean/dataset=openi/split=train/part-00000.json", b"{}")
    assert has_earlier_layout(store)
    assert has_earlier_layout(store, "openi")
    assert not has_earlier_layout(store, "open")
    assert "written by an earlier version" in str(nothing_held(store))
