"""Segmenters and detectors whose worker is the stand-in, alone and in chains, through the steps."""

import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.images.types import Radiograph, Volume
from storage.records import Modifiers, Site
from storage.shards import table_from_rows
from tasks.detect import detect_boxes
from tasks.engines.detection.chain import DetectorChain
from tasks.engines.protocols import Detection
from tasks.engines.registry import EngineContext, checked_settings, make_engine
from tasks.engines.segmentation import monai_bundle, totalsegmentator
from tasks.engines.worker.vocabulary import TARGETS, Classes, FreeText, Question, read_classes
from taxonomy.targets import load_taxonomy


@pytest.fixture
def engine(stand_in, tmp_path, monkeypatch):
    """Makes engines whose worker is the stand-in, with these targets and settings."""
    made: list[Any] = []

    def make(step, targets, **settings):
        file = tmp_path / f"targets-{len(made)}.yaml"
        file.write_text(targets)
        section = {"engine": "worker", "name": "toy", "python": sys.executable}
        given = section | {"script": str(stand_in), "targets": str(file)} | settings
        context = EngineContext(load_taxonomy(), "toy")
        made.append(make_engine(step, checked_settings(step, given), context))
        return made[-1]

    yield make
    for one in made:
        one.close()


def prompts(vocabulary, site):
    return vocabulary.question(site).prompts


def at(target, side=None):
    return Site(target, Modifiers(side))


def test_masks_are_united_cut_to_the_side_and_explained(engine):
    hu = np.full((20, 6, 6), -1000, np.int16)
    hu[2:18, 2:5, 2:5] = 0  # the body, whose middle is at x = 10; x grows to the patient's right
    hu[4, 3, 3], hu[15, 3, 3], hu[16, 4, 3] = 5, 5, 6
    segmenter = engine(
        "segment",
        "lung nodule: ['5']\npleural effusion: ['5', '6']\nleft kidney: '5'\n"
        "right kidney: '6'\ntrachea: nothing\naorta: strange\nliver: empty\n",
    )
    asked = [
        at("lung nodule", "left"),
        at("pleural effusion"),
        at("kidney"),
        at("kidney", "right"),
        at("left kidney", "right"),
        at("trachea"),
        at("aorta"),
        at("liver"),
        at("spleen"),
    ]
    answers = list(segmenter.segment(Volume(hu, np.eye(4)), asked))
    left, both, kidneys, right, named = (answer.voxels for answer in answers[:5])
    assert np.argwhere(left).tolist() == [[4, 3, 3]]
    assert (both == (hu >= 5)).all()
    assert (kidneys == (hu >= 5)).all()
    assert (right == (hu == 6)).all()
    assert (named == (hu == 5)).all()
    assert [answer.reason for answer in answers[5:]] == [
        "not_found",
        "target_not_supported",
        "not_found",
        "target_not_supported",
    ]


def test_a_volume_at_which_the_worker_is_lost_has_no_masks(engine):
    segmenter = engine("segment", "heart: '3'", options={})
    segmenter._pool._command.settings["faults"] = {"9": "leave"}
    bad, good = np.full((3, 3, 3), 9, np.int16), np.full((3, 3, 3), 3, np.int16)
    lost = list(segmenter.segment(Volume(bad, np.eye(4)), [at("heart"), at("spleen")]))
    assert [answer.reason for answer in lost] == ["worker_crashed", "target_not_supported"]
    (found,) = segmenter.segment(Volume(good, np.eye(4)), [at("heart")])
    assert found.voxels.all()


CLASSES = (
    "pleural effusion: both\nlung nodule: [left, right]\npneumothorax: weak\ncalcification: no"
)
FILM = Radiograph(np.full((50, 100), 0.5, np.float32), None, "PA", "DX")


def test_boxes_are_chosen_by_threshold_and_side(engine):
    detector = engine("detect", CLASSES, thresholds={"lung nodule": 0.4})
    sites = [
        at("pleural effusion"),
        at("pleural effusion", "right"),
        at("lung nodule"),
        at("lung nodule", "right"),
        at("pneumothorax"),
        at("heart"),
    ]
    both, right, nodule, *missing = detector.detect(FILM, sites)
    assert [(box.x_min, round(box.score, 2)) for box in both] == [(10, 0.3), (60, 0.25)]
    assert [box.x_min for box in right] == [10]  # the patient's right is left on the film
    assert [box.score for box in nodule] == [0.6]
    assert [(answer.reason, answer.detail) for answer in missing] == [
        ("side_mismatch", "lung nodule: all 1 boxes lie on the other side than stated"),
        ("not_found", "pneumothorax: the best box has the score 0.050, of 0.1 that is asked for"),
        ("target_not_supported", "heart: toy has no class for it"),
    ]


def test_a_forced_box_is_marked_in_the_record(engine, tmp_path):
    Image.fromarray(np.full((50, 100), 99, np.uint8)).save(tmp_path / "film.png")
    image = {"image_id": "i", "uri": str(tmp_path / "film.png"), "modality": "CR", "view": "PA"}
    key = {"dataset": "toy", "split": "test", "study_id": "s"}
    words: dict[str, Any] = {"laterality": None, "zones": [], "count": None}
    named = ("pleural effusion", "pneumothorax", "calcification")
    studies = table_from_rows("studies", [key | {"images": [image]}])
    positives = table_from_rows(
        "positives", [key | {"target": target, "modifiers": words} for target in named]
    )
    made = detect_boxes(studies, positives, engine("detect", CLASSES, policy="paper"))
    rows = made.rows.select(["target", "forced", "detector"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("pleural effusion", False, "toy 1"),
        ("pleural effusion", False, "toy 1"),
        ("pneumothorax", True, "toy 1"),
    ]
    assert [reject.reason for reject in made.rejects] == ["not_found"]
    strict = detect_boxes(studies, positives, engine("detect", CLASSES))
    assert strict.rows["target"].unique().to_pylist() == ["pleural effusion"]


def test_of_a_lost_batch_one_film_alone_has_no_boxes(engine):
    detector = engine("detect", CLASSES, batch_size=3)
    detector._pool._command.settings["faults"] = {"9": "leave"}
    bad = Radiograph(np.full((50, 100), 0.09, np.float32), None, "PA", "DX")
    sites = [at("pleural effusion")]
    first, lost, last = detector.detect_batch([(FILM, sites), (bad, sites), (FILM, sites)])
    assert lost[0].reason == "worker_crashed"
    assert [len(answers[0]) for answers in (first, last)] == [2, 2]


def test_a_chain_of_detectors_asks_on_for_what_is_not_known(engine):
    first = engine("detect", "pleural effusion: weak\nlung nodule: left", batch_size=1)
    second = engine("detect", CLASSES, name="other")
    chain = DetectorChain([first, second])
    assert (chain.batch_size, chain.concurrency) == (4, 2)
    sites = [at("calcification"), at("pleural effusion"), at("lung nodule"), at("pneumothorax")]
    answers = chain.detect_batch([(FILM, sites), (FILM, sites[2:3]), (FILM, sites[::-1])])
    assert [a.engine if isinstance(a, Detection) else a.reason for a in answers[0]] == [
        "not_found",  # the second looked for it
        "not_found",  # the first looked for it, and the second is not asked
        "toy 1",
        "not_found",
    ]
    assert isinstance(answers[2][1], Detection)


def test_the_targets_of_every_engine_are_in_the_taxonomy():
    taxonomy = load_taxonomy()
    files = list(TARGETS.glob("*.yaml"))
    assert len(files) == 3
    for file in files:
        assert not {target for target in read_classes(file) if target not in taxonomy}, file.name
    cxas = Classes(read_classes(TARGETS / "cxas.yaml"))
    assert prompts(cxas, at("rib")) == tuple(map(str, range(36, 82)))
    assert prompts(cxas, at("left rib 1")) == ("80", "81")
    total = totalsegmentator.classes(taxonomy)
    assert total["left rib 7"] == ("rib_left_7",)
    assert total["thoracic vertebrae"][-1] == "vertebrae_T12"
    bundle = monai_bundle.classes(taxonomy)
    assert bundle["left atrium"] == ("heart_atrium_left",)
    assert "pleural effusion" in total.keys() - bundle.keys()


def test_classes_follow_sides_ranges_and_words(tmp_path):
    file = tmp_path / "classes.yaml"
    file.write_text("'{side} rib': 'rib_{side}_{1-3}'\nheart: [a, b]\n")
    classes = Classes(read_classes(file))
    assert classes.question(at("left rib")) == Question(("rib_left_1", "rib_left_2", "rib_left_3"))
    assert prompts(classes, at("rib", "right"))[0] == "rib_right_1"
    assert len(prompts(classes, at("rib", "bilateral"))) == 6
    assert classes.question(at("heart", "left")) == Question(("a", "b"), "left")
    assert classes.question(at("spleen")) is None
    said = Site("lung nodule", Modifiers("left", ("upper",)))
    assert FreeText().question(said) == Question(("upper left lung nodule",))
