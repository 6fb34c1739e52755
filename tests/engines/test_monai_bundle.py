from storage.records import Modifiers, Site
from tests.engines.conftest import named, run


def test_masks_lie_on_the_grid_of_the_volume(made, tmp_path, volume):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    run(named("MONAI_PYTHON"), "monai_bundle_weights.py", bundle)
    engine = made(
        "segment",
        engine="monai_bundle",
        python=named("MONAI_PYTHON"),
        bundle=bundle,
        highres=False,
    )
    asked = [Site("aorta"), Site("atrium", Modifiers("left")), Site("pleural effusion")]
    aorta, atrium, effusion = engine.segment(volume, [*asked])
    for found in (aorta, atrium):
        assert found.voxels.shape == volume.hu.shape if hasattr(found, "voxels") else found.detail
    assert effusion.reason == "target_not_supported"
