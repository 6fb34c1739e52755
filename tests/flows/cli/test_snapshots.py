"""The versions of a data set, from the command line and in what is made of a store."""

import json
from pathlib import Path

import pytest

import vividmed
from flows.cli.snapshots import rollback, snapshots
from flows.cli.status import status
from storage.plans import Plan, write_plan
from storage.shards import Part
from storage.store import Store, StoreError
from storage.switching import renewal
from tests.storage.stores import write_part

STAGES = ("ingest", "clean", "extract", "filter")
PARTS = [Part("openi", "train", index) for index in range(2)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two versions of two parts, of which the second version changes one."""
    store = Store(str(tmp_path / "store"))
    with renewal(store, "openi") as place:
        write_plan(place, Plan("openi", STAGES, dict.fromkeys([part.name for part in PARTS], "r")))
        for part in PARTS:
            write_part(place, part, [f"{part.name}-a"], until="filter")
    with renewal(store, "openi") as place:
        write_part(place, PARTS[0], ["new"], until="filter")
    return store


def test_versions_are_listed_rolled_back_and_pruned(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshots("openi", store=store.root, as_json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert (first["version"], first["shards"], first["shards_changed"]) == (1, 8, None)
    assert (second["parent"], second["shards_shared"], second["shards_changed"]) == (1, 4, 4)
    assert second["is_current"]

    rollback("openi", store=store.root)
    assert "openi is again as in version 1: this is now version 3" in capsys.readouterr().out
    status(store=store.root, as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["version"] == 3

    snapshots("openi", store=store.root, keep=2)
    printed = capsys.readouterr()
    assert printed.err == "removed of openi: version 1\n"
    rows = [line.split() for line in printed.out.splitlines() if line.strip()]
    assert [row[0] for row in rows[-2:]] == ["2", "3"]
    assert "as version 1, current" in printed.out
    with pytest.raises(StoreError, match="no version 1 of openi: it has 2, 3"):
        rollback("openi", 1, store.root)


def test_a_data_set_that_is_not_there_is_said_to_be(store: Store) -> None:
    with pytest.raises(StoreError, match="no data set opneni, perhaps openi was meant"):
        snapshots("opneni", store=store.root)
    write_part(store, Part("mine", "all", 0), ["a"])
    with pytest.raises(StoreError, match="has no version of mine yet"):
        snapshots("mine", store=store.root)
    with pytest.raises(StoreError, match="has no version of mine yet"):
        rollback("mine", store=store.root)


def test_the_library_opens_a_version(store: Store) -> None:
    assert vividmed.open_store(store.root).snapshots == {"openi": 2}
    earlier = vividmed.open_store(store.root, snapshots={"openi": 1})
    assert earlier.snapshots == {"openi": 1}
    studies = earlier.arrow("positives")["study_id"].to_pylist()
    assert studies == ["part-00000-a", "part-00001-a"]
    assert earlier.sql("SELECT study_id FROM phrases WHERE study_id = 'new'").num_rows == 0
    with pytest.raises(StoreError, match="no version 7 of openi"):
        vividmed.open_store(store.root, snapshots={"openi": 7})
