from pathlib import Path

from storage.manifests import Manifest, write_manifest
from storage.shards import Part, ShardFile
from storage.store import Store
from tasks.pipeline.run_summary import stored_summaries

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
    outputs = {"rows": ShardFile("rows", "0" * 64, 3)}
    rejects = {"no_text": 1}
    write_manifest(store, Manifest(stage, part, "", {}, inputs, outputs, "row", 4, 3, rejects))


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


def test_stages_that_read_each_other_are_shown_too(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    circle = {"a": ["b.rows"], "b": ["a.rows"]}
    for stage, inputs in circle.items():
        part = Part("openi", "train", 0)
        outputs = {"rows": ShardFile("rows", "0" * 64, 1)}
        reads = dict.fromkeys(inputs, "")
        write_manifest(store, Manifest(stage, part, "", {}, reads, outputs, "row", 1, 1))
    [summary] = stored_summaries(store)
    assert [stage.stage for stage in summary.stages] == ["a", "b"]
