"""What a re-annotation changed, told by comparing two versions of real rows."""

from pathlib import Path

from storage.records import Box, GroundedReport, Grounding, Provenance, Tag
from storage.shards import Part
from storage.store import Store
from tasks.pipeline.release_note import ReleaseNote, TagChange, release_note
from tests.storage.stores import write_stage

PART = Part("openi", "train", 0)
TEXT = "Findings: Small effusion, a streaky opacity and a scar."
BOX = Grounding((Box(1, 2, 3, 4, 0.5),))
NOTHING = Grounding(reason="no_image")


def tag(phrase: str, target: str, grounding: Grounding = NOTHING) -> Tag:
    start = TEXT.index(phrase)
    return Tag(start, start + len(phrase), phrase, target, "abnormality", grounding)


def version(root: Path, *tags: Tag) -> Store:
    store = Store(str(root))
    report = GroundedReport("openi", "train", "CXR1", "film", TEXT, tags, Provenance("openi"))
    write_stage(store, "assemble", PART, [report.to_row()], {})
    return store


def test_every_kind_of_change_is_told(tmp_path: Path) -> None:
    before = version(
        tmp_path / "before",
        tag("effusion", "pleural effusion"),
        tag("opacity", "lung opacity", BOX),
        tag("scar", "fibrosis"),
    )
    after = version(
        tmp_path / "after",
        tag("effusion", "pleural effusion", BOX),
        tag("streaky", "streaky opacity"),
        tag("opacity", "streaky opacity"),
    )
    note = release_note(before, after, "openi")
    assert note.changes == (
        TagChange("grounding gained", "CXR1", "film", "effusion", "pleural effusion"),
        TagChange("tag added", "CXR1", "film", "streaky", "streaky opacity"),
        TagChange("target changed", "CXR1", "film", "opacity", "streaky opacity", "lung opacity"),
        TagChange("grounding lost", "CXR1", "film", "opacity", "streaky opacity"),
        TagChange("tag removed", "CXR1", "film", "scar", "fibrosis"),
    )
    assert note.table().num_rows == 5
    assert note.counts()["fibrosis", "tag removed"] == 1
    assert "| streaky opacity | target changed | 1 | “opacity” (was lung opacity) |" in (
        note.markdown()
    )


def test_the_same_version_twice_is_no_change(tmp_path: Path) -> None:
    store = version(tmp_path, tag("effusion", "pleural effusion"))
    assert release_note(store, store, "openi") == ReleaseNote("openi", ())
