"""The folder of a table, read by the libraries that people use, without an option."""

import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from storage.shards import Part
from storage.store import Store
from tests.storage.stores import STAGES, write_part

NAMES = {"openi": "train", "mimic-test": "validate", "val": "test", "train.2": "all"}
"""Data sets and splits whose names Hugging Face datasets would take for splits of its own."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Data sets of two parts, one of which has no rows."""
    store = Store(str(tmp_path_factory.mktemp("store")))
    for dataset, split in NAMES.items():
        for index, studies in enumerate((["a", "b"], [])):
            write_part(store, Part(dataset, split, index), studies)
    store.write(".partial/left", b"by a killed run")
    return store


def _datasets(folder: str) -> list[str]:
    from datasets import load_dataset

    by_split = load_dataset("parquet", data_dir=folder)
    return [name for split in by_split.values() for name in split["dataset"]]


def _datasets_by_folder(folder: str) -> list[str]:
    from datasets import load_dataset

    return [name for split in load_dataset(folder).values() for name in split["dataset"]]


def _duckdb(folder: str) -> list[str]:
    query = f"SELECT dataset FROM read_parquet('{folder}/**/*.parquet')"
    return [name for (name,) in duckdb.execute(query).fetchall()]


READERS: dict[str, Callable[[str], list[str]]] = {
    "pandas": lambda folder: pd.read_parquet(folder)["dataset"].tolist(),
    "pyarrow": lambda folder: pq.read_table(folder)["dataset"].to_pylist(),
    "pyarrow.dataset": lambda folder: ds.dataset(folder).to_table()["dataset"].to_pylist(),
    "polars": lambda folder: pl.read_parquet(folder)["dataset"].to_list(),
    "polars, lazily": lambda folder: pl.scan_parquet(folder).collect()["dataset"].to_list(),
    "duckdb": _duckdb,
    "datasets": _datasets,
    "datasets, by folder": _datasets_by_folder,
}


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", os.fspath(tmp_path / "huggingface"))


@pytest.mark.parametrize("reader", READERS)
def test_every_table_is_read_by_its_folder(store: Store, reader: str) -> None:
    for table, _ in STAGES.values():
        if table != "masks":
            names = READERS[reader](store.location(table))
            assert sorted(names) == sorted([*NAMES] * 2), table
