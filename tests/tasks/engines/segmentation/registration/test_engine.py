"""The registration segmenter on the real abdominal crop, the smallest CT with a reference."""

import numpy as np
import pytest

from storage.datasets import chest_ct
from storage.images.loading import load_volume
from storage.images.types import Volume
from storage.images.volume_files import read_label_ids
from storage.overlap import dice
from storage.records import Site
from tasks.engines.protocols import Segmentation, Ungrounded
from tasks.engines.segmentation.registration import alignment, confidence
from tasks.engines.segmentation.registration.engine import RegistrationSegmenter, offered_targets
from taxonomy.targets import load_taxonomy

LIVER_ID = 5


@pytest.fixture(autouse=True)
def fewer_levels(monkeypatch):
    """Deform in larger voxels than the engine does: seconds in place of a minute."""
    levels = (alignment.DemonsLevel(12.0, 100, 1.2), alignment.DemonsLevel(8.0, 100, 1.0))
    monkeypatch.setattr(alignment, "COARSE", levels)
    monkeypatch.setattr(alignment, "FINE", (alignment.DemonsLevel(6.0, 60, 1.0),))
    # Coarser registration correlates less; the engine's own bound is for all of its levels.
    monkeypatch.setattr(confidence, "LEAST_CORRELATION", 0.55)


@pytest.fixture(scope="module")
def crop(real_input):
    real_input("chest_ct/mask.nii.gz")
    return load_volume(real_input("totalsegmentator/abdomen_crop_ct.nii.gz"))


def segmented(volume, *targets):
    return list(RegistrationSegmenter().segment(volume, [Site(target) for target in targets]))


def test_the_liver_is_found_and_the_heart_is_not(crop, real_input):
    liver, heart, nodule = segmented(crop, "liver", "heart", "lung nodule")
    reference, _ = read_label_ids(real_input("totalsegmentator/abdomen_crop_seg.nii.gz"))
    assert isinstance(liver, Segmentation)
    assert dice(liver.voxels, reference == LIVER_ID) >= 0.85
    assert liver.score is not None
    assert confidence.LEAST_CONFIDENCE <= liver.score <= 1
    assert isinstance(heart, Ungrounded)
    assert heart.reason == "not_found"
    assert isinstance(nodule, Ungrounded)
    assert nodule.reason == "target_not_supported"


def test_a_mirrored_scan_is_refused(crop):
    mirrored = Volume(np.flip(crop.hu, axis=0).copy(), crop.affine)
    [answer] = segmented(mirrored, "liver")
    assert isinstance(answer, Ungrounded)
    assert answer.reason == "registration_failed"


def test_nothing_is_transferred_to_the_atlas_itself(real_input):
    real_input("chest_ct/cxr.nii.gz")
    [answer] = segmented(chest_ct.load_ct(), "heart")
    assert isinstance(answer, Ungrounded)
    assert answer.reason == "scan_of_the_atlas"


def test_a_scan_without_a_body_is_refused():
    air = Volume(np.full((40, 40, 40), -1000, np.int16), np.diag([3.0, 3.0, 3.0, 1.0]))
    [answer] = segmented(air, "liver")
    assert isinstance(answer, Ungrounded)
    assert answer.reason == "registration_failed"


def test_every_offered_target_is_one_of_the_taxonomy():
    taxonomy = load_taxonomy()
    assert all(target in taxonomy for target in offered_targets())
