"""Vertebrae counted along a drawn spine."""

import numpy as np
import pytest

from tasks.engines.segmentation.hounsfield.grid import Grid
from tasks.engines.segmentation.hounsfield.spine import Spine
from tasks.engines.segmentation.registration.levels import doubtful_levels

SPACING_MM = 3.0
HEIGHT = 9  # slices of a vertebra with its disc
NAMES = ("L2", "L1", "T12", "T11", "T10")  # from below
IDS = {f"vertebrae_{name}": number for number, name in enumerate(NAMES, start=1)} | {"heart": 7}


@pytest.fixture
def drawn():
    """Five vertebrae: endplates of 300 HU around bodies as dense as the discs between them."""
    hu = np.full((31, 31, 5 * HEIGHT + 6), 120, np.int16)
    labels = np.zeros(hu.shape, np.int32)
    for label in range(1, 6):
        first = 3 + (label - 1) * HEIGHT
        labels[:, :, first : first + HEIGHT] = label
        hu[:, :, [first, first + HEIGHT - 1]] = 300
    x = (np.arange(31)[:, None, None] - 15) * SPACING_MM
    y = (np.arange(31)[None, :, None] - 5) * SPACING_MM
    along = np.ones(hu.shape[2])
    spine = Spine(
        (x * along).astype(np.float32), (y * along).astype(np.float32), np.ones(hu.shape[2], bool)
    )
    return Grid(hu, hu, (1, 1, 1), (SPACING_MM,) * 3), labels, spine


def test_labels_that_hold_one_vertebra_each_are_certain(drawn):
    grid, labels, spine = drawn
    assert doubtful_levels(grid, labels, IDS, spine) == {}


def test_a_label_stretched_over_two_vertebrae_is_doubtful(drawn):
    grid, labels, spine = drawn
    labels[labels == 3] = 2
    doubts = doubtful_levels(grid, labels, IDS, spine)
    assert set(doubts) == {"vertebrae_L1", "vertebrae_T12"}
    assert doubts["vertebrae_L1"].startswith("2 vertebral bodies were counted where L1")


def test_nothing_is_certain_where_the_canal_was_not_found(drawn):
    grid, labels, spine = drawn
    lost = Spine(spine.right_mm, spine.front_mm, np.zeros_like(spine.certain))
    assert set(doubtful_levels(grid, labels, IDS, lost)) == {n for n in IDS if n != "heart"}
