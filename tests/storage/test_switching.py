"""A data set is switched to a new version at once, whatever is killed on the way, and back."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from storage.catalogue import CatalogueError, query_rows, run_query, write_catalogue
from storage.plans import Plan, read_holdings, write_plan
from storage.reading import StoreView
from storage.shards import Part
from storage.snapshots import open_snapshot, read_snapshot, snapshot_numbers
from storage.store import Store, StoreError
from storage.sweeping import sweep
from storage.switching import complete_switch, prune, record, renewal, rollback
from storage.tables import open_tables
from tests.storage.stores import write_part
from tests.storage.test_readers import READERS

DATASET = "openi"
STAGES = ("ingest", "clean")
PARTS = [Part(DATASET, "train", index) for index in range(3)]
FIRST = {0: ["a0", "b0"], 1: ["a1"], 2: ["a2"]}
SECOND = {0: ["new"], 1: []}
"""The studies of each part: one changes, one loses its rows, one is planned no more."""


def _build(
    store: Store, studies: dict[int, list[str]], end: type[BaseException] | None = None
) -> None:
    """A build as the flow does it; parts that have these studies already are skipped.

    end: what ends it before the switch.
    """
    with renewal(store, DATASET) as place:
        plan = Plan(DATASET, STAGES, {PARTS[index].name: "r" for index in studies})
        write_plan(place, plan)
        held = (
            open_tables(place).read("studies", DATASET)["study_id"].to_pylist()
            if read_holdings(place, DATASET)
            else []
        )
        for index, of_part in studies.items():
            if not of_part or not set(of_part) <= set(held):
                write_part(place, PARTS[index], of_part, until="clean")
        sweep(place, plan)
        if end:
            raise end


def _seen(store: Store) -> list[str]:
    """The studies of the version in every table; all tables must agree."""
    tables = open_tables(store)
    seen = {
        table: sorted(tables.read(table, DATASET)["study_id"].to_pylist())
        for table in ("studies", "clean_reports")
    }
    [studies, *others] = seen.values()
    assert all(other == studies for other in others)
    return studies


def _in_folders(store: Store) -> list[str]:
    return sorted(pq.read_table(store.location("clean_reports"))["study_id"].to_pylist())


def _studies(of_parts: dict[int, list[str]]) -> list[str]:
    return sorted(study for of_part in of_parts.values() for study in of_part)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    _build(store, FIRST)
    return store


class Killed(BaseException):
    """Stands for the end of a process."""


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None], None]]:
    """Lets every change of a store after the first ones fail, as those of a dead process do."""
    left: list[int | None] = [None]

    def counted(name: str) -> None:
        change = getattr(Store, name)

        def checked(self: Store, *given: object) -> None:
            if left[0] is not None:
                if left[0] <= 0:
                    raise Killed
                left[0] -= 1
            change(self, *given)

        monkeypatch.setattr(Store, name, checked)

    for name in ("write", "delete", "_copy", "share"):
        counted(name)

    def set_left(changes: int | None) -> None:
        left[0] = changes

    yield set_left
    left[0] = None


def test_a_whole_build_leaves_a_version_and_one_without_changes_none(store: Store) -> None:
    assert snapshot_numbers(store, DATASET) == [1]
    _build(store, FIRST)  # renews part 1 and 2 no more than part 0
    assert snapshot_numbers(store, DATASET) == [1]
    assert store.list(".staging") == []
    assert store.list("locks") == []


def test_versions_follow_each_other_and_all_stay_readable(store: Store) -> None:
    _build(store, SECOND)
    assert _seen(store) == _in_folders(store) == _studies(SECOND)
    second = read_snapshot(store, DATASET)
    assert (second.number, second.parent) == (2, 1)
    assert _seen(open_snapshot(store, DATASET, 1)) == _studies(FIRST)

    back = rollback(store, DATASET)
    assert (back.number, back.parent, back.restores) == (3, 2, 1)
    assert _seen(store) == _in_folders(store) == _studies(FIRST)
    assert _seen(open_snapshot(store, DATASET, 2)) == _studies(SECOND)
    assert rollback(store, DATASET, 2).number == 4
    assert _seen(store) == _in_folders(store) == _studies(SECOND)

    with pytest.raises(StoreError, match="no version 9 of openi: it has 1, 2, 3, 4"):
        rollback(store, DATASET, 9)
    assert prune(store, DATASET, keep=1) == [1, 2, 3]
    assert _seen(store) == _in_folders(store) == _studies(SECOND)
    files = {file.path for file in read_snapshot(store, DATASET).files}
    assert len(store.list("versions")) == len(files)
    assert all(store.has(path) for path in files)


def test_unchanged_files_take_no_room_twice(store: Store) -> None:
    _build(store, FIRST | {0: ["new"]})
    first, second = (read_snapshot(store, DATASET, number) for number in (1, 2))
    shared = first.digests.items() & second.digests.items()
    assert {path for path, _ in shared} == {
        path for path in first.digests if "part-00000" not in path
    }
    inodes = {Path(store.location(p)).stat().st_ino for p in store.list("versions")}
    assert len(inodes) == len(first.digests.items() | second.digests.items())


def test_a_switch_that_is_killed_is_one_version_at_every_moment(
    store: Store, tmp_path: Path, kill_after: Callable[[int | None], None]
) -> None:
    with pytest.raises(Killed):
        _build(store, SECOND, end=Killed)  # all is staged, the switch has not begun
    came_about = []
    for changes in range(10_000):
        copy = Store(str(tmp_path / f"copy-{changes}"))
        shutil.copytree(store.root, copy.root, copy_function=os.link)
        ended = False
        with suppress(Killed), renewal(copy, DATASET):
            kill_after(changes)
            ended = True
        ended = ended and not copy.list(".staging")
        kill_after(None)
        came_about.append(_seen(copy))
        assert came_about[-1] in (_studies(FIRST), _studies(SECOND))
        for lock in copy.list("locks"):
            copy.delete(lock)  # the process of this test lives on
        with renewal(copy, DATASET):
            pass
        assert _seen(copy) == _in_folders(copy) == _studies(SECOND)
        assert _seen(open_snapshot(copy, DATASET, 1)) == _studies(FIRST)
        assert copy.list(".staging") == copy.list(".partial") == []
        shutil.rmtree(copy.root)
        if ended:
            break
    assert changes > 20
    assert came_about == sorted(came_about, key=lambda seen: seen == _studies(SECOND))


def test_a_reader_that_began_before_a_switch_reads_its_version_to_the_end(store: Store) -> None:
    pinned = StoreView.open(store.root, snapshots={})
    with run_query(store, "SELECT study_id FROM clean_reports ORDER BY study_id") as result:
        _build(store, SECOND)
        assert [study for (study,) in result.rows] == _studies(FIRST)
    assert pinned.snapshots == {DATASET: 1}
    assert sorted(pinned.arrow("studies")["study_id"].to_pylist()) == _studies(FIRST)
    assert pinned.sql("SELECT count(*) AS n FROM studies")["n"].to_pylist() == [4]
    assert StoreView.open(store.root).snapshots == {DATASET: 2}
    assert StoreView.open(store.root, {DATASET: 1}).arrow("clean_reports").num_rows == 4


def test_readers_beside_switches_see_one_version_each_time(store: Store) -> None:
    _build(store, SECOND)
    ended = threading.Event()

    def read() -> list[list[str]]:
        seen = [_seen(store)]
        while not ended.is_set():
            seen.append(_seen(store))
        return seen

    with ThreadPoolExecutor(3) as readers:
        reading = [readers.submit(read) for _ in range(3)]
        for _ in range(6):
            rollback(store, DATASET)
        ended.set()
        seen = [studies for of_reader in reading for studies in of_reader.result()]
    assert {*map(tuple, seen)} <= {tuple(_studies(FIRST)), tuple(_studies(SECOND))}


def test_every_reader_reads_a_table_by_its_folder_after_a_switch(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    _build(store, FIRST | {0: ["new"]})
    for name, reader in READERS.items():
        assert reader(store.location("clean_reports")) == [DATASET] * 3, name


def test_the_views_of_any_client_see_one_version(store: Store) -> None:
    file = write_catalogue(store)
    with duckdb.connect(str(file), read_only=True) as views:
        _build(store, SECOND)
        assert views.execute("SELECT count(*) FROM clean_reports").fetchone() == (4,)
    write_catalogue(store)
    with duckdb.connect(str(file), read_only=True) as views:
        assert views.execute("SELECT count(*) FROM clean_reports").fetchone() == (1,)


def test_a_disk_without_links_keeps_the_former_version_by_copies(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    shutil.rmtree(store.location("versions"))
    with run_query(store, "SELECT study_id FROM clean_reports ORDER BY study_id") as result:
        rows = list(result.rows)
    assert [study for (study,) in rows] == _studies(FIRST)
    monkeypatch.setattr("storage.locks._SETTLING_S", 0.0)
    moved = pytest.raises(CatalogueError, match="a new version became current")
    with moved, run_query(store, "SELECT 1"):
        _build(store, SECOND)
    assert _seen(store) == _in_folders(store) == _studies(SECOND)
    assert _seen(open_snapshot(store, DATASET, 1)) == _studies(FIRST)
    current = read_snapshot(store, DATASET).digests.values()
    assert not [p for p in store.list("versions") if Path(p).stem in current]


def test_versions_in_a_bucket(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.locks._SETTLING_S", 0.0)
    address, query = bucket.root.split("?")
    store = Store(f"{address}-versions?{query}")
    _build(store, {0: ["a"]})
    _build(store, {0: ["b"]})
    assert _seen(store) == ["b"]
    assert _seen(open_snapshot(store, DATASET, 1)) == ["a"]
    rollback(store, DATASET)
    assert _seen(store) == ["a"]
    assert query_rows(store, "SELECT study_id FROM clean_reports")[1] == [("a",)]
    assert prune(store, DATASET, keep=1) == [1, 2]
    assert store.list("versions") == []


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_a_lost_or_damaged_file_is_restored_by_the_next_build(
    store: Store, damage: Callable[[Path], object]
) -> None:
    lost = Path(store.location("clean_reports/openi/part-00000.parquet"))
    damage(lost)
    with renewal(store, DATASET) as place:
        write_part(place, PARTS[0], FIRST[0], until="clean")
    assert _seen(store) == _in_folders(store) == _studies(FIRST)


def test_a_store_of_before_there_were_versions_gets_its_first(store: Store) -> None:
    for path in (*store.list("snapshots"), *store.list("versions")):
        store.delete(path)
    _build(store, SECOND)
    assert snapshot_numbers(store, DATASET) == [1, 2]
    assert _seen(open_snapshot(store, DATASET, 1)) == _studies(FIRST)


def test_what_is_not_whole_has_no_version(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert record(store, DATASET) is None
    with pytest.raises(StoreError, match="no version of openi yet"):
        rollback(store, DATASET)
    complete_switch(store, DATASET)
    assert store.list("snapshots") == []
