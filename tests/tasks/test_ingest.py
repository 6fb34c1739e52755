from pathlib import Path

from storage.datasets.registry import find_declaration
from storage.rejects import Reject
from storage.shards import Part
from tasks.ingest import ingest_studies


def test_an_image_that_is_left_out_is_counted_and_its_study_read(tmp_path: Path) -> None:
    (tmp_path / "ecgen-radiology").mkdir()
    report = "<r><parentImage id='/etc/hostname'/><parentImage id='a'/></r>"
    (tmp_path / "ecgen-radiology" / "1.xml").write_text(report)
    (tmp_path / "ecgen-radiology" / "2.xml").write_text("cut")
    reader = find_declaration("openi").open(tmp_path)
    output = ingest_studies(Part("openi", "train", 0), reader, list(reader.records()))
    assert (output.rows_in, output.rows_out, len(output.rejects)) == (2, 1, 1)
    [study] = output.rows.to_pylist()
    assert [image["image_id"] for image in study["images"]] == ["a"]
    [left_out] = output.discarded
    assert isinstance(left_out, Reject)
    assert (left_out.study_id, left_out.reason) == ("CXR1", "path_outside_source")


def test_what_a_rule_takes_out_is_rejected_and_in_the_funnel(tmp_path: Path) -> None:
    (tmp_path / "train_captions.csv").write_text("ID,Caption\na,Axial CT of a cyst.\nb,Figure.\n")
    declaration = find_declaration("rocov2")
    reader, selection = declaration.open(tmp_path), declaration.select(tmp_path, None)
    part = Part("rocov2", "train", 0)
    output = ingest_studies(part, reader, list(reader.records()), selection)
    assert (output.rows_in, output.rows_out, len(output.rejects)) == (2, 1, 1)
    assert [(step.step, step.studies) for step in output.funnel if step.studies] == [
        ("found", 2),
        ("least_words", 1),
        ("kept", 1),
    ]
