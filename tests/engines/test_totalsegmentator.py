import pytest

from storage.records import Modifiers, Site
from tests.engines.conftest import kill_workers, named, run


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    run(named("TOTALSEGMENTATOR_PYTHON"), "totalsegmentator_weights.py", folder)
    return folder


def test_masks_lie_on_the_grid_of_the_volume_and_a_killed_worker_comes_back(made, weights, volume):
    python = named("TOTALSEGMENTATOR_PYTHON")
    engine = made("segment", engine="totalsegmentator", python=python, weights=weights, fast=True)
    asked = [Site("rib", Modifiers("left")), Site("lung nodule"), Site("carina")]
    rib, nodule, carina = engine.segment(volume, asked)
    assert rib.voxels.shape == volume.hu.shape
    assert rib.voxels.any()
    assert "Dataset913_lung_nodules, which is not in" in nodule.detail
    assert carina.reason == nodule.reason == "target_not_supported"
    kill_workers()
    (again,) = engine.segment(volume, asked[:1])
    assert (again.voxels == rib.voxels).all()
