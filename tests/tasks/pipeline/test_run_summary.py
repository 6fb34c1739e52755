from pathlib import Path

from flows.cli.tables import summary_lines
from storage.manifests import Manifest, stage_order, write_manifest
from storage.shards import Part, ShardFile, shard_path
from storage.store import Store
from tasks.pipeline.run_summary import stored_summaries

TABLES = {
    "ingest": "studies",
    "clean": "clean_reports",
    "extract": "phrases",
    "filter": "positives",
    "detect": "boxes",
    "segment": "masks",
    "crosscheck": "verdicts",
    "assemble": "grounded_reports",
    "weigh": "weights",
}
READS = {
    "ingest": ["records"],
    "clean": ["ingest.studies"],
    "extract": ["clean.clean_reports"],
    "filter": ["clean.clean_reports", "extract.phrases"],
    "detect": ["ingest.studies", "filter.positives"],
    "segment": ["ingest.studies", "filter.positives"],
    "crosscheck": ["detect.boxes", "segment.masks"],
    "assemble": ["extract.rejects", "detect.rejects", "segment.masks", "crosscheck.verdicts"],
    "weigh": ["filter.positives"],
}


def _write(store: Store, stage: str, index: int) -> None:
    part = Part("openi", "train", index)
    inputs = dict.fromkeys(READS[stage], "0" * 64)
    outputs = {
        table: ShardFile(shard_path(table, part, stage), "0" * 64, 3 if table != "rejects" else 1)
        for table in (TABLES[stage], "rejects")
    }
    usage = {"a_counter_of_an_earlier_version": 2}
    rejects = {"no_text": 1}
    manifest = Manifest(stage, part, "", {}, inputs, outputs, "row", 4, 3, rejects, usage=usage)
    write_manifest(store, manifest)


def test_every_stored_stage_is_summed_up_after_those_that_it_reads(tmp_path: Path) -> None:
    """Two of these stages are in no table of ours: another version, or a team of its own."""
    store = Store(str(tmp_path))
    for stage in READS:
        for index in range(2):
            _write(store, stage, index)
    [summary] = stored_summaries(store)
    order = [stage.stage for stage in summary.stages]
    assert order[:6] == ["ingest", "clean", "extract", "filter", "detect", "segment"]
    assert set(order) == set(READS)
    assert order.index("segment") < order.index("crosscheck") < order.index("assemble")
    assert all((s.rows_in, s.rows_out, s.shards) == (8, 6, 2) for s in summary.stages)
    [*_, line] = summary_lines(summary)
    assert "a_counter_of_an_earlier_version 4" in line


def test_stages_that_read_each_other_have_an_order_too() -> None:
    part = Part("openi", "train", 0)
    circle = {"a": "b.rows", "b": "a.rows"}
    manifests = [
        Manifest(stage, part, "", {}, {reads: ""}, {}, "row", 1, 1)
        for stage, reads in circle.items()
    ]
    assert stage_order(manifests) == ["a", "b"]
