import os
from dataclasses import astuple

import numpy as np
import pytest

from storage.images.types import Radiograph
from storage.records import Site
from tasks.engines.protocols import Detection
from tasks.engines.worker.prepared import SCRIPTS
from tests.engines.conftest import kill_workers, named, run

CONFIG = (
    "projects/dino_eva/configs/dino-eva-02/dino_eva_02_vitdet_b_4attn_1024_lrd0p7_4scale_12ep.py"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    python, source = named("DETREX_PYTHON"), named("DETREX_SOURCE")
    os.environ["PYTHONPATH"] = str(SCRIPTS)
    try:
        run(python, "detrex_weights.py", source / CONFIG, folder)
    finally:
        del os.environ["PYTHONPATH"]
    return folder


def numbers(answers):
    found = [answer for film in answers for answer in film if isinstance(answer, Detection)]
    return [value for answer in found for value in astuple(answer.boxes[0])]


def test_boxes_are_in_pixels_of_the_film_and_a_killed_worker_comes_back(made, weights):
    engine = made(
        "detect",
        engine="detrex",
        python=named("DETREX_PYTHON"),
        config=weights / "small.py",
        weights=weights / "model_final.pth",
        side=256,
        threshold=0.9,
        policy="paper",
    )
    noise = np.random.default_rng(0).random((500, 400), np.float32)
    films = [Radiograph(noise, None, "PA", "DX"), Radiograph(noise[:300], None, "PA", "DX")]
    sites = [Site("pleural effusion"), Site("lung nodule"), Site("pneumothorax"), Site("heart")]
    answers = engine.detect_batch([(film, sites) for film in films])
    for film, (*found, heart) in zip(films, answers, strict=True):
        rows, columns = film.pixels.shape
        forced = [answer for answer in found if isinstance(answer, Detection)]
        assert forced, "random weights give some score to some class"
        for answer in forced:
            (box,) = answer.boxes
            assert answer.forced
            assert 0 <= box.x_min < box.x_max <= columns
            assert 0 <= box.y_min < box.y_max <= rows
            assert 0 < box.score < 0.9
        assert heart.reason == "target_not_supported"
    kill_workers()
    again = engine.detect_batch([(film, sites) for film in films])
    assert numbers(again) == pytest.approx(numbers(answers), abs=0.01)  # sums of several threads
