"""Every packaged declaration: its targets exist, and its reader finds masks where they lie."""

from pathlib import Path

import numpy as np
import pytest

from storage.datasets import registry
from storage.datasets.reader import Study
from storage.records import Mask
from taxonomy.targets import load_taxonomy
from tests.storage.datasets.declared_trees import AFFINE, AXIAL, write_cases

NAMES = registry.packaged_names()
SEGMENTED = [n for n in NAMES if registry.find_declaration(n).reader in ("masks", "nnunet")]


def test_forty_sets_are_declared() -> None:
    assert len(SEGMENTED) >= 40


@pytest.mark.parametrize("name", NAMES)
def test_targets_are_those_of_the_taxonomy(name: str) -> None:
    named = set(registry.find_declaration(name).targets.values()) - {None}
    assert named <= load_taxonomy().targets.keys()


@pytest.mark.parametrize("name", SEGMENTED)
def test_masks_of_a_small_case_come_back_where_they_lie(name: str, tmp_path: Path) -> None:
    declared = registry.find_declaration(name)
    for root, study_id, expected in write_cases(declared, tmp_path):
        reader = declared.open(root)
        (record,) = reader.records()
        assert record.key == study_id
        assert record.split in declared.splits
        (study,) = reader.read([record])
        assert isinstance(study, Study), study
        assert not study.left_out
        assert study.gold is not None
        assert {mask.label for mask in study.gold.masks} == expected.keys()
        for mask in study.gold.masks:
            assert mask.target == declared.targets[mask.label]
            assert mask.image_id == study.images[0].image_id
            stored = AXIAL if "DICOM" in study.images[0].uri else AFFINE
            assert_same_places(mask.mask, expected[mask.label], stored)


def assert_same_places(mask: Mask, indices: set[tuple[int, ...]], stored: np.ndarray) -> None:
    """The voxels of a mask, and others by their index along the axes of a file."""
    found, wanted = np.argwhere(mask.voxels), np.array(sorted(indices))
    if mask.affine is None:
        assert found.tolist() == wanted.tolist()
        return
    places = [
        sorted((at @ affine[:3, :3].T + affine[:3, 3]).round(2).tolist())
        for at, affine in ((found, np.reshape(mask.affine, (4, 4))), (wanted, stored))
    ]
    np.testing.assert_allclose(places[0], places[1], atol=0.011)
