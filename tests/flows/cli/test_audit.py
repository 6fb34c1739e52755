"""`audit` of a built data set against what it ships and what people marked in it."""

import json
from pathlib import Path

import pytest

from flows.cli.audit import audit
from storage.gold import GoldBox, GoldPhrase
from storage.plans import Plan, write_plan
from storage.records import VolumeBox
from storage.shards import Part
from storage.store import Store, StoreError
from tests.storage.stores import STAGES, Rows, write_part

EFFUSION = "pleural effusion"


def built(folder: Path, gold: dict[str, Rows], *stages: str) -> str:
    """A store with one study; its boxes, phrases and text are those of `row_of`."""
    store = Store(str(folder / "store"))
    write_plan(store, Plan("ms-cxr", stages or tuple(STAGES), {"part-00000": "r"}))
    part = Part("ms-cxr", "test", 0)
    write_part(store, part, ["s1"], until=stages[-1] if stages else "assemble", gold=gold)
    return store.root


def test_our_labels_are_scored_against_gold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = {"dataset": "ms-cxr", "split": "test", "study_id": "s1"}
    phrase = GoldPhrase("0", "Effusion", "Pleural Effusion", EFFUSION, image_id="ct")
    # of our box from 1 2 5 to 3 4 6, half; the other one lies in an image that we have nothing of
    boxes = [
        GoldBox(image, VolumeBox(1, 2, 5, 3, 3, 6, 1.0), "Pleural Effusion", EFFUSION)
        for image in ("ct", "other")
    ]
    root = built(
        tmp_path,
        {
            "gold_phrases": [key | phrase.to_row()],
            "gold_boxes": [key | box.to_row() for box in boxes],
        },
    )
    audit("ms-cxr", store=root, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"phrases", "boxes"}
    assert found["phrases"]["sentences"]["targets"][EFFUSION]["f1"] == 1.0
    overlap = found["boxes"]["targets"][EFFUSION]
    assert (overlap["instances"], overlap["unanswered"], overlap["predicted"]) == (2, 1, 1)
    assert (overlap["iou"], overlap["hit_rate"]) == (0.25, 0.5)
    audit("ms-cxr", store=root)
    assert "Our boxes against gold boxes" in capsys.readouterr().out


def test_a_data_set_without_a_reference_or_a_report_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="ms-cxr has nothing to audit against"):
        audit("ms-cxr", store=built(tmp_path / "bare", {}))
    with pytest.raises(StoreError, match="ms-cxr has no reports, or they are not annotated yet"):
        audit("ms-cxr", store=built(tmp_path / "images", {}, "ingest"))
