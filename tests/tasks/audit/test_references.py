"""The audit of a data set against labels and gold, on rows whose scores are known."""

import numpy as np
import pytest

from storage.gold import GoldBox, GoldMask, GoldPhrase
from storage.records import Assertion, Box, Mask, SiteKey
from storage.shards import table_from_rows
from tasks.audit.references import COLUMNS, ReferenceAudit, audit_references
from tasks.audit.shipped_labels import load_label_targets
from taxonomy.targets import load_taxonomy

TAXONOMY = load_taxonomy()


def audited(**rows: list[dict[str, object]]) -> ReferenceAudit:
    tables = {
        name: table_from_rows(name, rows.get(name, [])).select(columns)
        for name, columns in COLUMNS.items()
    }
    return audit_references(tables, TAXONOMY)


def study(name: str, **labels: int) -> dict[str, object]:
    named = [{"name": key.replace("__", ":"), "value": value} for key, value in labels.items()]
    return {"study_id": name, "labels": named}


def positive(name: str, target: str, start: int = 0, end: int = 0) -> dict[str, object]:
    place = {"section": "findings", "start": start, "end": end}
    return {"study_id": name, "target": target} | place


def report(name: str, findings: str = "") -> dict[str, object]:
    return {"study_id": name, "findings": findings}


def test_every_label_names_a_target_of_the_taxonomy() -> None:
    maps = load_label_targets()
    assert all(target in TAXONOMY for labels in maps.values() for target in labels.values())
    assert maps["negbio"] == maps["chexpert"] == maps["radiologist"]


def test_labels_are_scored_by_target_and_the_uncertain_ones_apart() -> None:
    result = audited(
        studies=[
            study("1", chexpert__Edema=1, chexpert__Fracture=0),
            study("2", chexpert__Edema=-1, chexpert__Fracture=1),
            study("3", chexpert__Pneumonia=0, **{"chexpert__Pleural Other": 1}),
            study("4"),
        ],
        clean_reports=[report("1"), report("3")],
        positives=[
            positive("1", "pulmonary edema"),
            positive("2", "pulmonary edema"),
            positive("2", "rib fracture"),  # a fracture, as labelled
            positive("3", "pneumonia"),
            positive("4", "pneumonia"),  # a study without labels
        ],
    )
    assert list(result.labels) == ["chexpert"]
    labels = result.labels["chexpert"]
    scores = labels.scores.targets
    assert set(scores) == {"pulmonary edema", "fracture", "pneumonia"}
    edema, fracture, pneumonia = (scores[t] for t in ("pulmonary edema", "fracture", "pneumonia"))
    assert (edema.support, edema.predicted, edema.agreed) == (1, 1, 1)
    assert (fracture.support, fracture.predicted, fracture.agreed) == (1, 1, 1)
    assert (pneumonia.support, pneumonia.predicted, pneumonia.agreed) == (0, 1, 0)
    assert (labels.uncertain["pulmonary edema"], labels.uncertain_found["pulmonary edema"]) == (
        1,
        1,
    )
    assert labels.unmapped == {"Pleural Other": 1}
    assert (labels.scores.reports, labels.scores.covered) == (3, 2)
    assert labels.as_json()["targets"]["fracture"]["f1"] == 1.0


def test_two_labels_of_one_target_are_one() -> None:
    both = {"ct-rate__Arterial wall calcification": 0, "ct-rate__Lung nodule": 1}
    result = audited(
        studies=[study("1", **both, **{"ct-rate__Coronary artery wall calcification": 1})],
        positives=[positive("1", "lung nodule")],
    )
    scores = result.labels["ct-rate"].scores.targets
    assert scores["arterial calcification"].support == 1
    assert scores["lung nodule"].f1 == 1.0


def phrase(name: str, words: str, target: str | None, assertion: Assertion = "present"):
    marked = GoldPhrase("0", words, "label", target, assertion)
    return {"study_id": name} | marked.to_row()


def test_phrases_are_scored_by_study_and_by_sentence() -> None:
    findings = "Small left  effusion. Heart is large. No edema."
    result = audited(
        gold_phrases=[
            phrase("1", "small left effusion.", "pleural effusion"),
            phrase("1", "Heart is large", "cardiomegaly"),
            phrase("1", "No edema.", "pulmonary edema", "absent"),
            phrase("2", "A pneumothorax.", "pneumothorax"),
            phrase("2", "A strange sign.", None),
        ],
        clean_reports=[report("1", findings)],
        positives=[
            positive("1", "pleural effusion", 12, 20),
            positive("1", "pulmonary edema", 41, 46),
            positive("1", "cardiomegaly", 12, 20),  # in the wrong sentence
        ],
    )
    assert result.phrases is not None
    studies, sentences = result.phrases.studies, result.phrases.sentences
    assert (studies.reports, studies.covered) == (2, 1)
    assert studies.targets["cardiomegaly"].f1 == 1.0
    assert studies.targets["pneumothorax"].recall == 0.0
    edema = studies.targets["pulmonary edema"]
    assert (edema.support, edema.predicted) == (0, 1)
    heart = sentences.targets["cardiomegaly"]
    assert (heart.support, heart.predicted, heart.agreed) == (1, 1, 0)
    assert sentences.targets["pleural effusion"].f1 == 1.0
    assert (sentences.reports, sentences.covered, result.phrases.unmapped) == (5, 3, 1)


def gold_box(image: str, target: str | None, *corners: float):
    x_min, y_min, x_max, y_max = corners
    box = GoldBox(image, Box(x_min, y_min, x_max, y_max, 1.0), "label", target)
    return {"study_id": "1"} | box.to_row()


def our_box(image: str, target: str, *corners: float):
    row = {"study_id": "1", "image_id": image, "instance": 0, "detector": "d"}
    x_min, y_min, x_max, y_max = corners
    return row | SiteKey(target).to_row() | Box(x_min, y_min, x_max, y_max, 0.5).to_row()


def test_boxes_are_scored_by_the_one_that_overlaps_most() -> None:
    result = audited(
        gold_boxes=[
            gold_box("a", "fracture", 0, 0, 10, 10),
            gold_box("a", "fracture", 100, 0, 110, 10),
            gold_box("b", "fracture", 0, 0, 10, 10),  # nothing of ours in this image
            gold_box("b", None, 0, 0, 10, 10),
            gold_box("b", "cardiomegaly", 0, 0, 10, 10),
        ],
        boxes=[
            our_box("a", "rib fracture", 0, 0, 10, 8),
            our_box("a", "fracture", 50, 50, 60, 60),
            our_box("a", "cardiomegaly", 50, 50, 60, 60),  # the gold of this image has none
            our_box("c", "fracture", 0, 0, 10, 10),  # an image without gold
        ],
    )
    audit = result.boxes
    assert audit is not None
    score = audit.targets["fracture"]
    rates = score.rates()
    assert (score.instances, score.images, score.unanswered) == (3, 2, 1)
    assert (score.predicted, score.matched, audit.unmapped) == (2, 1, 1)
    assert rates["iou"] == pytest.approx(0.8 / 3)
    assert rates["dice"] == pytest.approx(16 / 18 / 3)
    assert rates["hit_rate"] == rates["center_hit_rate"] == pytest.approx(1 / 3)
    assert rates["precision"] == 0.5
    heart = audit.targets["cardiomegaly"]
    assert (heart.unanswered, heart.predicted, heart.rates()["iou"]) == (1, 1, 0.0)
    assert (audit.overall.instances, audit.overall.matched) == (4, 1)


def test_masks_of_a_target_are_joined_and_need_one_grid() -> None:
    def voxels(*places: int) -> Mask:
        array = np.zeros((8, 2, 2), bool)
        array[list(places)] = True
        return Mask.of(array, np.eye(4))

    def gold(image: str, mask: Mask, instance: int = 0):
        marked = GoldMask(image, mask, "nodule", "lung nodule", instance=instance)
        return {"study_id": "1"} | marked.to_row()

    def ours(image: str, mask: Mask):
        row = {"study_id": "1", "image_id": image, "instance": 0, "segmenter": "s"}
        return row | SiteKey("lung nodule").to_row() | mask.to_row()

    elsewhere = Mask.of(np.ones((8, 2, 2), bool), np.diag([2.0, 1, 1, 1]))
    result = audited(
        gold_masks=[
            gold("a", voxels(0, 1)), gold("a", voxels(2), 1), gold("b", voxels(0)),
            gold("c", voxels(0)),
        ],
        masks=[ours("a", voxels(1, 2, 3)), ours("b", elsewhere)],
    )  # fmt: skip
    audit = result.masks
    assert audit is not None
    score = audit.targets["lung nodule"]
    assert (score.instances, score.unanswered, audit.incomparable) == (2, 1, 1)
    rates = score.rates()
    assert rates["iou"] == pytest.approx(0.5 / 2)
    assert rates["dice"] == pytest.approx(4 / 6 / 2)
    assert rates["hit_rate"] == rates["center_hit_rate"] == 0.5
    assert not result.is_empty
    assert audited().is_empty
