"""`sql`, `show`, `status` and `catalogue` on small stores."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.cli.catalogue import catalogue
from flows.cli.show import show
from flows.cli.sql import SHOWN_ROWS, sql
from flows.cli.status import status
from storage.catalogue import CatalogueError
from storage.plans import Plan, write_plan
from storage.shards import Part
from storage.store import Store, StoreError
from tests.flows.conftest import BIN, REPOSITORY
from tests.storage.stores import STAGES, write_part

SECONDS_OF_IMPORTS = 6
"""CPU time after which a command is at its query for certain; it is at import for about two."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two parts of two studies; of the second, only the first stages are done."""
    store = Store(str(tmp_path / "store"))
    records = {"part-00000": "r", "part-00001": "r"}
    write_plan(store, Plan("openi", tuple(STAGES), records))
    write_part(store, Part("openi", "train", 0), ["CXR1", "CXR2"])
    write_part(store, Part("openi", "train", 1), ["CXR30", "CXR31"], until="clean")
    return store


def test_a_query_shows_its_rows_as_they_are(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sql("SELECT '[/b] :smile:' AS text", store.root)
    assert "[/b] :smile:" in capsys.readouterr().out


def test_status_names_what_is_missing(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    status(store=store.root)
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.startswith("openi: incomplete: of 2 shards of each stage are missing extract 1")

    status(store=store.root, as_json=True)
    [found] = json.loads(capsys.readouterr().out)
    assert found["complete"] is False
    assert found["missing_shards"]["assemble"] == 1
    assert {s["stage"]: s["rows_out"] for s in found["stages"]}["clean"] == 4


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_status_names_a_shard_that_was_destroyed(
    store: Store, damage: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    write_part(store, Part("openi", "train", 1), ["CXR30", "CXR31"])
    shard = Path(store.location("boxes/openi/part-00001.parquet"))
    shard.unlink() if damage is None else shard.write_bytes(damage)
    status(store=store.root)
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.startswith(
        f"openi: shards are damaged or gone (1), such as {shard}: `vividmed build`"
    )
    status(store=store.root, as_json=True)
    [found] = json.loads(capsys.readouterr().out)
    assert (found["complete"], found["missing_shards"]) == (False, {})
    assert found["damaged_shards"] == ["boxes/openi/part-00001.parquet"]


def test_a_query_says_that_only_a_part_is_there(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sql("SELECT count(*) AS n FROM phrases", store.root, as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out) == [{"n": 2}]
    assert said.err.startswith("note: only a part is counted: openi: incomplete: of 2 shards")
    write_part(store, Part("openi", "train", 1), ["CXR30", "CXR31"])
    sql("SELECT count(*) AS n FROM phrases", store.root, as_json=True)
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == ([{"n": 4}], "")


def test_columns_of_the_same_name_are_all_kept(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sql("SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a", store.root, as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]


SHELL = {
    "full": ("> /dev/full", 1, "error: standard output cannot be written: No space left on device"),
    "closed": (">&-", 0, ""),
    "few characters": ("> out", 0, ""),
}


@pytest.mark.parametrize(("where", "code", "says"), SHELL.values(), ids=SHELL)
def test_standard_output_of_any_kind(
    store: Store, tmp_path: Path, where: str, code: int, says: str
) -> None:
    few = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    query = "SELECT '5 µm · größer' AS text"
    run = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f'"$0" sql "$1" --json --store "$2" {where}',
            BIN / "vividmed",
            query,
            store.root,
        ],
        cwd=tmp_path,
        env=os.environ | few | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code
    assert says in run.stderr
    assert "Traceback" not in run.stderr
    if where == "> out":
        assert json.loads((tmp_path / "out").read_text()) == [{"text": "5 µm · größer"}]


def test_show_prints_the_box_of_a_volume_with_three_axes(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    show("CXR1", store=store.root)
    assert "box [1 2 5 3 4 6]" in capsys.readouterr().out
    show("CXR1", store=store.root, as_json=True)
    [report] = json.loads(capsys.readouterr().out)
    assert report["text"] == "Effusion."


def test_show_suggests_a_study_of_a_similar_name(store: Store) -> None:
    with pytest.raises(StoreError, match="holds no study cxr2x: perhaps `CXR2` was meant"):
        show("cxr2x", store=store.root)
    with pytest.raises(StoreError, match="holds no grounded report of CXR30 yet"):
        show("CXR30", store=store.root)
    with pytest.raises(StoreError, match="`vividmed sql` can list"):
        show("another", store=store.root)


def test_show_goes_on_beside_a_damaged_shard(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    write_part(store, Part("openi", "train", 1), ["CXR30", "CXR31"])
    Path(store.location("grounded_reports/openi/part-00001.parquet")).write_bytes(b"PAR1")
    show("CXR1", store=store.root)
    printed = capsys.readouterr()
    assert "Effusion." in printed.out
    assert "part-00001.parquet is damaged or gone" in printed.err


def test_json_of_a_query_is_valid_whatever_it_holds(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    values = (
        "'nan'::FLOAT AS a, '-inf'::DOUBLE AS b, '\\x00\\xFF'::BLOB AS c, DATE '2024-01-02' AS d"
    )
    sql(f"SELECT {values}, MAP {{'k': 1}} AS e, [1.5, NULL] AS f", store.root, as_json=True)
    [row] = json.loads(capsys.readouterr().out)
    assert row == {
        "a": None, "b": None, "c": "2 bytes", "d": "2024-01-02", "e": {"k": 1}, "f": [1.5, None]
    }  # fmt: skip
    sql("FROM boxes WHERE false", store.root, as_json=True)
    assert json.loads(capsys.readouterr().out) == []


def test_a_long_result_is_cut_on_the_screen_and_whole_as_json(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "SELECT range AS n FROM range(100_000)"
    sql(query, store.root)
    printed = capsys.readouterr().out
    assert f"these are the first {SHOWN_ROWS:,} rows" in printed
    assert len(printed.splitlines()) < SHOWN_ROWS + 20
    sql(query, store.root, as_json=True)
    assert len(json.loads(capsys.readouterr().out)) == 100_000


def test_a_query_that_only_reads_is_asked_for(store: Store) -> None:
    with pytest.raises(CatalogueError, match="only reads, and COPY may change something"):
        sql(f"COPY boxes TO '{store.root}/out.csv'", store.root)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_ends_a_long_query(store: Store) -> None:
    endless = (
        "SELECT count(*) FROM range(10_000_000) a, range(10_000_000) b WHERE a.range > b.range"
    )
    with subprocess.Popen(
        [BIN / "vividmed", "sql", endless, "--store", store.root],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as query:
        # Interrupted imports end well too, but the library that is imported complains aloud.
        while psutil.Process(query.pid).cpu_times().user < SECONDS_OF_IMPORTS:
            assert query.poll() is None
            time.sleep(0.05)
        os.kill(query.pid, signal.SIGINT)
        _, printed = query.communicate()
    assert query.returncode not in {0, None}
    assert "Traceback" not in printed


def test_the_views_of_a_moved_store_are_written_again(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(store.root).rename(tmp_path / "moved")
    catalogue(store=str(moved))
    assert capsys.readouterr().out.strip() == f"catalogue: {moved / 'catalogue.duckdb'}"
    with pytest.raises(StoreError, match="holds nothing yet"):
        catalogue(store=store.root)
