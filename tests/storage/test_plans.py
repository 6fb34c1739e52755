"""What a reader sees of a store that is half rebuilt: one generation, never a mix."""

from pathlib import Path

import pytest

from storage.plans import Plan, current_manifests, read_holdings, read_plan, write_plan
from storage.shards import Part
from storage.store import Store
from storage.tables import open_tables
from tests.storage.stores import STAGES, write_part

PARTS = [Part("openi", "train", n) for n in range(4)]


def _plan(*records: str) -> Plan:
    return Plan("openi", tuple(STAGES), {PARTS[n].name: r for n, r in enumerate(records)})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Four studies in two parts, all stages done."""
    store = Store(str(tmp_path))
    write_plan(store, _plan("ab", "cd"))
    write_part(store, PARTS[0], ["a", "b"], "ab")
    write_part(store, PARTS[1], ["c", "d"], "cd")
    return store


def _seen(store: Store, table: str) -> list[str]:
    ids: list[str] = open_tables(store).dataset(table).to_table()["study_id"].to_pylist()
    return sorted(ids)


def test_a_finished_store_is_complete(store: Store) -> None:
    [holding] = read_holdings(store)
    assert (holding.missing, holding.older, holding.mixed) == ({}, (), [])
    assert holding.condition() == "openi: complete"
    assert _seen(store, "grounded_reports") == ["a", "b", "c", "d"]


def test_with_smaller_shards_half_done_old_and_new_do_not_mix(store: Store) -> None:
    write_plan(store, _plan("a", "b", "c", "d"))
    assert _seen(store, "studies") == []
    write_part(store, PARTS[0], ["a"], "a", until="filter")
    write_part(store, PARTS[1], ["b"], "b", until="ingest")

    assert _seen(store, "studies") == ["a", "b"]
    assert _seen(store, "positives") == ["a"]
    assert _seen(store, "grounded_reports") == []
    [holding] = read_holdings(store)
    assert holding.missing == {
        "ingest": 2, "clean": 3, "extract": 3, "filter": 3, "detect": 4, "segment": 4, "assemble": 4
    }  # fmt: skip
    condition = holding.condition()
    assert condition.startswith("openi: incomplete: of 4 shards of each stage are missing ingest 2")
    assert "shards of an earlier build are left out" in condition


def test_what_was_made_from_an_earlier_shard_is_left_out(store: Store) -> None:
    write_part(store, PARTS[1], ["c", "d", "e"], "cd", until="clean")
    assert _seen(store, "clean_reports") == ["a", "b", "c", "d", "e"]
    assert _seen(store, "positives") == ["a", "b"]
    stages = {m.stage for m in current_manifests(store) if m.part == PARTS[1]}
    assert stages == {"ingest", "clean"}


def test_a_lost_manifest_takes_all_that_was_made_from_its_shard(store: Store) -> None:
    store.delete("manifests/extract/openi/part-00000.json")
    assert _seen(store, "clean_reports") == ["a", "b", "c", "d"]
    assert _seen(store, "grounded_reports") == ["c", "d"]


def test_a_part_beyond_the_plan_is_left_out(store: Store) -> None:
    write_part(store, PARTS[2], ["z"], "z")
    assert _seen(store, "grounded_reports") == ["a", "b", "c", "d"]


def test_other_settings_for_some_parts_are_told(store: Store) -> None:
    path = "manifests/segment/openi/part-00000.json"
    store.write(path, (store.read(path) or b"").replace(b'"version": 1', b'"version": 2'))
    [holding] = read_holdings(store)
    assert holding.condition() == (
        "openi: incomplete: made partly with other settings: segment: run `vividmed build` on it "
        "again"
    )


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff"])
def test_a_damaged_plan_counts_as_none(store: Store, damage: bytes) -> None:
    store.write(_plan().path, damage)
    assert read_plan(store, "openi") is None
    assert _seen(store, "grounded_reports") == ["a", "b", "c", "d"]
