import numpy as np
import pytest

from storage.images.types import Volume
from storage.records import Modifiers, Site
from tests.engines.conftest import kill_workers, named, run


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    run(named("SAT_PYTHON"), "sat_weights.py", named("SAT_SOURCE"), folder)
    return folder


def section(folder, **other):
    return {
        "engine": "sat",
        "python": named("SAT_PYTHON"),
        "source": named("SAT_SOURCE"),
        "weights": folder / "SAT_Nano.pth",
        "text_encoder": folder / "text_encoder.pth",
        "text_model": folder / "biolord",
        "backbone": "UNET",
        "window": (64, 64, 32),
        **other,
    }


def test_masks_lie_on_the_grid_of_the_volume_and_a_killed_worker_comes_back(made, weights):
    hu = np.random.default_rng(3).integers(-900, 900, (24, 30, 8)).astype(np.int16)
    volume = Volume(hu, np.diag([1.5, 1.2, 5.0, 1.0]))
    engine = made("segment", **section(weights, queries=2))
    asked = [
        Site("lung", Modifiers("left")),
        Site("C3 vertebra"),
        Site("pleural effusion"),
        Site("carina"),
    ]
    *found, carina = engine.segment(volume, asked)
    assert carina.reason == "target_not_supported"
    masks = [answer for answer in found if hasattr(answer, "voxels")]
    assert {answer.reason for answer in found if not hasattr(answer, "voxels")} <= {"not_found"}
    assert masks, "random weights find something"
    assert all(mask.voxels.shape == hu.shape for mask in masks)
    assert all(0.5 < mask.score <= 1 for mask in masks)
    kill_workers()
    again = [a for a in engine.segment(volume, asked) if hasattr(a, "voxels")]
    assert all((a.voxels == b.voxels).all() for a, b in zip(again, masks, strict=True))


def test_weights_of_another_network_are_refused(made, weights):
    from tasks.engines.worker.errors import WorkerError

    engine = made("segment", **section(weights, weights=weights / "text_encoder.pth"))
    volume = Volume(np.zeros((8, 8, 8), np.int16), np.eye(4))
    with pytest.raises(WorkerError, match="is not of this network"):
        list(engine.segment(volume, [Site("lung")]))
