"""The demo from end to end: every real report, every real image, the command a newcomer types."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from benchmarks.golden.difference import compare, show
from benchmarks.golden.freezing import freeze, load
from storage.catalogue import connect
from storage.gold import GOLD_TABLES
from storage.schemas import SCHEMAS
from storage.store import Store
from tests.flows.conftest import Command
from tests.storage.test_readers import READERS

STAGES = ["ingest", "clean", "extract", "filter", "detect", "segment", "assemble"]


@pytest.fixture(scope="module")
def demo_home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose input files are links of its own, so that a test may break them."""
    folder = tmp_path_factory.mktemp("demo")
    for file in (home / "inputs").resolve().rglob("*"):
        if file.is_file():
            link = folder / "inputs" / file.relative_to((home / "inputs").resolve())
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def demo(demo_home: Path, vividmed: Command) -> str:
    """What the demo printed."""
    result = vividmed("build", "openi", "showcase", VIVIDMED_HOME=str(demo_home))
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def rows(demo: str, demo_home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    assert demo
    with connect(Store(str(demo_home / "store"))) as connection:
        yield connection


def test_the_end_names_the_store_and_the_gallery(demo: str, demo_home: Path) -> None:
    assert f"store:   {demo_home / 'store'}" in demo
    assert f"gallery: {demo_home / 'store' / 'gallery.html'}" in demo
    page = (demo_home / "store" / "gallery.html").read_text()
    assert len(page) > 100_000
    assert page.count("Version 1 of this data set") == 2


def test_the_demo_makes_what_was_frozen(demo: str, demo_home: Path) -> None:
    assert demo
    fresh, words = freeze(demo_home / "store")
    changes = compare(load(), fresh)
    lines: list[str] = []
    show(changes, words, lines.append)
    assert not changes, "\n".join(lines)


def test_rows_in_are_rows_out_and_rejects(rows: duckdb.DuckDBPyConnection) -> None:
    stages = rows.sql(
        "SELECT dataset, stage, sum(rows_in), sum(rows_out), "
        "sum(list_sum(map_values(rejects)))::BIGINT FROM manifests GROUP BY ALL"
    ).fetchall()
    assert len(stages) == 2 * len(STAGES)
    counted = rows.sql("SELECT dataset, stage, count(*) FROM rejects GROUP BY ALL").fetchall()
    listed = {(dataset, stage): n for dataset, stage, n in counted}
    for dataset, stage, rows_in, rows_out, rejected in stages:
        assert rows_in == rows_out + (rejected or 0), (dataset, stage)
        assert (rejected or 0) == listed.get((dataset, stage), 0), (dataset, stage)


def _one(rows: duckdb.DuckDBPyConnection, query: str) -> Any:
    [(value,)] = rows.sql(query).fetchall()
    return value


def test_each_stage_takes_what_the_one_before_gave(rows: duckdb.DuckDBPyConnection) -> None:
    assert _one(rows, "SELECT count(*) FROM studies WHERE dataset = 'openi'") == 3955
    taken = "SELECT sum(rows_in)::BIGINT FROM manifests WHERE stage = '{}'"
    pairs = (("clean", "studies"), ("extract", "clean_reports"), ("filter", "phrases"))
    for stage, table in pairs:
        assert _one(rows, taken.format(stage)) == _one(rows, f"SELECT count(*) FROM {table}")
    text = "SELECT count(DISTINCT (dataset, study_id)) FROM {}"
    assert _one(rows, text.format("grounded_reports")) == _one(rows, text.format("clean_reports"))


def test_every_phrase_is_the_text_at_its_offsets(rows: duckdb.DuckDBPyConnection) -> None:
    for table in ("phrases", "positives"):
        texts = rows.sql(
            f"SELECT CASE section WHEN 'findings' THEN findings ELSE impression END, start, "
            f'"end", phrase FROM {table} JOIN clean_reports USING (dataset, split, study_id)'
        ).fetchall()
        assert len(texts) > 5000
        assert all(text[start:end] == phrase for text, start, end, phrase in texts)


def test_every_tag_is_the_text_at_its_offsets_and_spans_are_apart(
    rows: duckdb.DuckDBPyConnection,
) -> None:
    reports = rows.sql("SELECT text, tags FROM grounded_reports").fetchall()
    assert len(reports) > 3000
    for text, tags in reports:
        before = (0, 0)
        for tag in tags:
            assert text[tag["start"] : tag["end"]] == tag["phrase"]
            span = tag["start"], tag["end"]
            assert span == before or span[0] >= before[1]  # several targets may share a span
            before = span


def test_a_tag_has_a_grounding_or_a_reason_never_both(rows: duckdb.DuckDBPyConnection) -> None:
    wrong = rows.sql(
        "SELECT * FROM (SELECT unnest(tags) AS t FROM grounded_reports) "
        "WHERE (t.grounding = 'none') != (t.reason IS NOT NULL) "
        "OR (t.grounding = 'box') != (coalesce(len(t.boxes), 0) > 0) "
        "OR (t.grounding = 'mask') != (t.mask IS NOT NULL)"
    )
    assert wrong.fetchall() == []
    openi = rows.sql(
        "SELECT DISTINCT tag.reason FROM (SELECT unnest(tags) AS tag FROM grounded_reports "
        "WHERE dataset = 'openi')"
    ).fetchall()
    assert {reason for (reason,) in openi} == {"image_not_found", "no_image"}


def test_radiographs_get_boxes_and_volumes_get_masks(rows: duckdb.DuckDBPyConnection) -> None:
    boxes = dict(rows.sql("SELECT study_id, count(*) FROM boxes GROUP BY ALL").fetchall())
    masks = dict(rows.sql("SELECT study_id, count(*) FROM masks GROUP BY ALL").fetchall())
    assert set(boxes) == {"radiograph-nodules", "chest-ct-projection"}
    assert {"chest-ct-nodule", "chest-ct-dissection"} <= set(masks)
    assert _one(rows, "SELECT count(*) FROM studies WHERE source = 'authored'") == 6


def test_boxes_lie_inside_their_image(rows: duckdb.DuckDBPyConnection) -> None:
    outside = rows.sql(
        "SELECT b.* FROM boxes b JOIN (SELECT unnest(images) AS i FROM studies) s "
        "ON s.i.image_id = b.image_id WHERE x_min < 0 OR y_min < 0 OR x_max > s.i.shape[2] "
        "OR y_max > s.i.shape[1] OR x_min >= x_max OR y_min >= y_max OR score NOT BETWEEN 0 AND 1"
    )
    assert outside.fetchall() == []


def test_status_and_show_print_what_was_built(
    demo: str, demo_home: Path, vividmed: Command
) -> None:
    assert demo
    status = vividmed("status", "--json", VIVIDMED_HOME=str(demo_home))
    assert status.returncode == 0, status.stderr
    accounts = json.loads(status.stdout)
    assert {a["dataset"]: [s["stage"] for s in a["stages"]] for a in accounts} == {
        "openi": STAGES,
        "showcase": STAGES,
    }
    shown = vividmed("show", "chest-ct-nodule", VIVIDMED_HOME=str(demo_home))
    assert "nodule in the left lower lobe" in shown.stdout
    assert " ml" in shown.stdout
    shown = vividmed("show", "radiograph-nodules", VIVIDMED_HOME=str(demo_home))
    assert "box [" in shown.stdout


@pytest.mark.parametrize("reader", READERS)
def test_five_libraries_read_every_table_by_its_folder(
    demo: str, demo_home: Path, rows: duckdb.DuckDBPyConnection, reader: str
) -> None:
    assert demo
    for table in SCHEMAS.keys() - {*GOLD_TABLES}:  # nobody marked anything in these data sets
        found = Counter(READERS[reader](str(demo_home / "store" / table)))
        held = rows.sql(f"SELECT dataset, count(*) FROM {table} GROUP BY dataset").fetchall()
        assert found == dict(held), table


def test_a_second_run_computes_nothing_and_a_lost_shard_costs_only_its_own_chain(
    demo: str, demo_home: Path, vividmed: Command
) -> None:
    assert demo
    again = vividmed("build", "openi", "showcase", VIVIDMED_HOME=str(demo_home))
    assert again.returncode == 0, again.stderr
    assert "nothing to do: all 70 shards are in the store" in again.stdout

    lost = demo_home / "store/phrases/openi/part-00002.parquet"
    before = {p: p.stat().st_mtime_ns for p in (demo_home / "store").glob("[a-u]*/**/*.parquet")}
    content = lost.read_bytes()
    lost.unlink()
    repaired = vividmed("build", "openi", VIVIDMED_HOME=str(demo_home))
    assert repaired.returncode == 0, repaired.stderr
    assert lost.read_bytes() == content
    after = {p: p.stat().st_mtime_ns for p in before}
    made_again = {p.relative_to(demo_home / "store") for p in before if after[p] != before[p]}
    assert {path.name.split(".")[0] for path in made_again} == {"part-00002"}
    tables = {path.parts[0] for path in made_again} - {"rejects"}
    # No image of openi is there, so it has no boxes and masks, and tables without rows no files.
    assert tables == {"phrases", "positives", "grounded_reports"}
    shutil.rmtree(demo_home / "store")
