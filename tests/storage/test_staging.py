"""A data set is renewed beside itself: the base is read meanwhile as it was."""

from pathlib import Path

import duckdb
import pytest

from storage.catalogue import connect
from storage.manifests import manifest_path, read_manifest
from storage.plans import Plan, read_holdings, read_plan, write_plan
from storage.shards import Part, read_shard
from storage.staging import StagedStore
from storage.store import Store
from storage.sweeping import sweep
from storage.tables import open_tables
from tests.storage.stores import STAGES, write_part

DATASET = "mimic-test"
PARTS = [Part(DATASET, "train", index) for index in range(2)]


def _plan(*parts: Part, records: str = "r") -> Plan:
    return Plan(DATASET, tuple(STAGES), {part.name: records for part in parts})


@pytest.fixture
def staged(tmp_path: Path) -> StagedStore:
    """A staging of a data set of two whole parts; beside it lies another data set."""
    base = Store(str(tmp_path))
    write_plan(base, _plan(*PARTS))
    for part in (*PARTS, Part("openi", "train", 0)):
        write_part(base, part, [f"{part.name}-a", f"{part.name}-b"])
    staged = StagedStore(base.root, DATASET)
    staged.begin(1)
    return staged


def _content(store: Store) -> dict[str, bytes | None]:
    return {path: store.read(path) for path in store.list("") if not path.startswith(".staging")}


def _studies(store: Store) -> list[str]:
    rows = open_tables(store).read("positives", DATASET)
    return sorted(rows["study_id"].to_pylist())


def test_a_renewed_part_is_seen_in_the_staging_alone(staged: StagedStore) -> None:
    before = _content(staged.base)
    write_part(staged, PARTS[0], ["new"])
    assert _content(staged.base) == before
    assert _studies(staged) == ["new", "part-00001-a", "part-00001-b"]
    assert len(_studies(staged.base)) == 4
    [holding] = read_holdings(staged, DATASET)
    assert holding.is_complete
    renewed = read_manifest(staged, "filter", PARTS[0])
    former = read_manifest(staged.base, "filter", PARTS[0])
    assert renewed is not None
    assert former is not None
    assert read_shard(staged, renewed.outputs["positives"]).num_rows == 1
    assert read_shard(staged.base, former.outputs["positives"]).num_rows == 2
    with connect(staged) as views:
        assert views.execute("SELECT count(*) FROM studies").fetchone() == (5,)
    assert staged.list("manifests", ".json") == staged.base.list("manifests", ".json")


def test_deleted_files_are_gone_from_the_staging_alone(staged: StagedStore) -> None:
    write_plan(staged, _plan(PARTS[0]))
    removed = sweep(staged, _plan(PARTS[0]))
    assert {path for path in removed if "part-00001" not in path} == set()
    assert not staged.has(manifest_path("clean", PARTS[1]))
    assert staged.read(manifest_path("clean", PARTS[1])) is None
    assert _studies(staged) == ["part-00000-a", "part-00000-b"]
    assert len(_studies(staged.base)) == 4
    write_part(staged, PARTS[1], ["again"])
    assert staged.has(manifest_path("clean", PARTS[1]))
    write_plan(staged, _plan(*PARTS))
    assert _studies(staged) == ["again", "part-00000-a", "part-00000-b"]


def test_a_part_without_rows_hides_the_rows_of_its_base(staged: StagedStore) -> None:
    write_part(staged, PARTS[0], [])
    assert _studies(staged) == ["part-00001-a", "part-00001-b"]
    assert _studies(staged.base)[:2] == ["part-00000-a", "part-00000-b"]


def test_what_all_versions_share_is_written_to_the_store(staged: StagedStore) -> None:
    staged.write("taxonomies/abc.json", b"{}")
    staged.write("studies/openi/part-00001.parquet", b"another data set's")
    assert staged.base.read("taxonomies/abc.json") == b"{}"
    assert staged.base.has("studies/openi/part-00001.parquet")
    staged.delete("studies/openi/part-00001.parquet")
    assert not staged.base.has("studies/openi/part-00001.parquet")
    assert staged.staged() == {}


def test_a_staging_is_gone_on_with_only_on_the_version_it_began_from(staged: StagedStore) -> None:
    write_plan(staged, _plan(*PARTS, records="s"))
    staged.begin(1)
    assert read_plan(staged, DATASET) == _plan(*PARTS, records="s")
    assert [*staged.staged()] == [f"plans/{DATASET}~.json"]
    staged.begin(2)
    assert read_plan(staged, DATASET) == _plan(*PARTS)
    staged.discard()
    assert staged.base.list(".staging") == []


def test_a_lost_file_of_the_base_is_lost_in_the_staging(staged: StagedStore) -> None:
    [shard] = [s for s in open_tables(staged).shards["boxes"] if s.part == PARTS[0]]
    staged.base.delete(shard.file.path)
    with pytest.raises(duckdb.Error), connect(staged) as views:
        views.execute("SELECT sum(x_min) FROM boxes").fetchall()
