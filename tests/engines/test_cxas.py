import numpy as np

from storage.images.types import Radiograph
from storage.records import Modifiers, Site
from tests.engines.conftest import named, run


def test_boxes_are_in_pixels_of_the_film(made, tmp_path):
    weights = tmp_path / "UNet_ResNet50_default.pth"
    run(named("CXAS_PYTHON"), "cxas_weights.py", weights)
    engine = made("detect", engine="cxas", python=named("CXAS_PYTHON"), weights=weights)
    film = Radiograph(np.random.default_rng(0).random((300, 800), np.float32), None, "PA", "DX")
    sites = [Site("rib"), Site("lung", Modifiers("left")), Site("pleural effusion")]
    rib, _, effusion = engine.detect(film, sites)
    assert rib, "random weights find something in 46 classes"
    for box in rib:
        assert 0 <= box.x_min < box.x_max <= 800
        assert 0 <= box.y_min < box.y_max <= 300
        assert 0.5 < box.score <= 1
    assert effusion.reason == "target_not_supported"
