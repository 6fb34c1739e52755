"""The HU segmenter on phantoms whose truth is known, and on anything shaped like a volume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.images.types import Volume
from storage.overlap import dice
from storage.records import Modifiers, Site
from tasks.engines.protocols import Segmentation, Ungrounded
from tasks.engines.segmentation.hounsfield.chest import Chest
from tasks.engines.segmentation.hounsfield.engine import HounsfieldSegmenter, structures
from tasks.engines.segmentation.hounsfield.grid import Grid, components, fill_holes, largest

EVERY_SITE = [Site(target) for target in structures()]


def ellipsoid(points_mm, centre_mm, half_axes_mm):
    return (((points_mm - centre_mm) / half_axes_mm) ** 2).sum(axis=-1) <= 1


def phantom(spacing_mm=(2.0, 2.0, 3.0), nodule_mm=(-70.0, -20.0, 0.0)):
    """A body with two lungs, a trachea, a bronchus to each lung and a nodule of 20 mm."""
    size_mm = np.array([320.0, 220.0, 260.0])
    shape = np.round(size_mm / spacing_mm).astype(int)
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * spacing_mm
    points -= size_mm / 2
    x, y, z = np.moveaxis(points, -1, 0)
    hu = np.full(shape, -1000, np.int16)
    hu[(x / 140) ** 2 + (y / 95) ** 2 <= 1] = 40
    left = ellipsoid(points, (-70, 0, -10), (50, 70, 100))
    right = ellipsoid(points, (70, 0, -10), (50, 70, 100))
    hu[left | right] = -850
    ball = ellipsoid(points, nodule_mm, (10, 10, 10))
    hu[ball] = 30
    trachea = (np.hypot(x, y) <= 8) & (z > 0)
    bronchi = (np.hypot(y, z + np.abs(x) * 0.5) <= 6) & (np.abs(x) < 40)
    hu[(trachea | bronchi) & ~left & ~right] = -1000
    truth = {"left lung": left, "right lung": right, "lung nodule": ball, "trachea": trachea}
    return Volume(hu, np.diag([*spacing_mm, 1.0])), truth


def answer(volume, target, **modifiers):
    return HounsfieldSegmenter().segment(volume, [Site(target, Modifiers(**modifiers))])[0]


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 3.0), (1.0, 1.0, 5.0), (3.0, 3.0, 2.0)])
def test_a_phantoms_lungs_and_nodule_are_found(spacing_mm):
    volume, truth = phantom(spacing_mm)
    for target in ("left lung", "right lung"):
        assert dice(answer(volume, target).voxels, truth[target]) > 0.95
    assert dice(answer(volume, "lung nodule").voxels, truth["lung nodule"]) > 0.75


def test_the_trachea_is_not_lung():
    volume, truth = phantom()
    airway, lung = answer(volume, "airway"), answer(volume, "lung")
    assert (airway.voxels & truth["trachea"]).sum() > 0.9 * truth["trachea"].sum()
    assert not (airway.voxels & lung.voxels).any()


def test_main_bronchi_lie_on_their_sides():
    volume, _ = phantom()
    middle = volume.hu.shape[0] / 2
    assert np.nonzero(answer(volume, "left main bronchus").voxels)[0].mean() < middle
    assert np.nonzero(answer(volume, "right main bronchus").voxels)[0].mean() > middle


def test_a_nodule_answers_only_for_its_own_side_and_zone():
    volume, _ = phantom(nodule_mm=(-70.0, 30.0, -70.0))
    assert isinstance(
        answer(volume, "lung nodule", laterality="left", zones=("basal",)), Segmentation
    )
    for elsewhere in ({"laterality": "right"}, {"zones": ("apical",)}):
        refused = answer(volume, "lung nodule", **elsewhere)
        assert isinstance(refused, Ungrounded)
        assert refused.reason == "not_found"
        assert "1 elsewhere" in refused.detail


def test_laterality_picks_the_side_of_a_paired_structure():
    volume, truth = phantom()
    assert dice(answer(volume, "lung", laterality="right").voxels, truth["right lung"]) > 0.95


def test_one_lung_alone_is_given_its_side():
    volume, truth = phantom()
    volume.hu[truth["right lung"]] = 40
    assert isinstance(answer(volume, "left lung"), Segmentation)
    assert answer(volume, "right lung").reason == "not_found"


def test_what_does_not_follow_from_hounsfield_units_is_refused():
    volume, _ = phantom()
    assert answer(volume, "heart").reason == "target_not_supported"
    assert answer(volume, "left lung lower lobe").reason == "target_not_supported"


def test_the_same_scan_gets_the_same_masks_in_the_order_asked():
    volume, _ = phantom()
    once, again = (HounsfieldSegmenter().segment(volume, EVERY_SITE) for _ in range(2))
    assert len(once) == len(EVERY_SITE)
    for one, other in zip(once, again, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Segmentation) and isinstance(other, Segmentation):
            assert np.array_equal(one.voxels, other.voxels)


@given(
    shape=st.tuples(*[st.integers(1, 24)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.3, 12.0)] * 3),
    kind=st.sampled_from([-2048, -1000, 0, 3071, 32767, "noise"]),
    turn=st.floats(-0.5, 0.5),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_any_volume_gets_a_mask_of_its_shape_or_a_reason(shape, spacing_mm, kind, turn, seed):
    hu = np.full(shape, 0 if kind == "noise" else kind, np.int16)
    if kind == "noise":
        hu = np.random.default_rng(seed).integers(-1024, 1500, shape).astype(np.int16)
    oblique = np.eye(4)
    oblique[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    volume = Volume(hu, oblique @ np.diag([*spacing_mm, 1.0]))
    for found in HounsfieldSegmenter().segment(volume, EVERY_SITE):
        if isinstance(found, Segmentation):
            assert found.voxels.shape == shape
            assert found.voxels.dtype == bool
            assert found.voxels.any()
            assert found.score is not None
            assert 0 <= found.score <= 1
        else:
            assert found.detail


@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.3, 4.0)] * 3),
)
@settings(max_examples=40, deadline=None)
def test_a_working_mask_comes_back_on_the_scans_grid(shape, spacing_mm):
    grid = Grid.of(Volume(np.zeros(shape, np.int16), np.diag([*spacing_mm, 1.0])))
    assert grid.enlarge(np.ones(grid.hu.shape, bool)).shape == shape
    assert grid.enlarge(np.ones(grid.hu.shape, bool)).all()


def test_morphology_is_in_millimetres():
    grid = Grid.of(Volume(np.zeros((21, 21, 11), np.int16), np.diag([1.5, 1.5, 3.0, 1.0])))
    dot = np.zeros(grid.hu.shape, bool)
    dot[10, 10, 5] = True
    grown = grid.dilate(dot, 3.0)
    assert grown[:, 10, 5].sum() == 5
    assert grown[10, 10, :].sum() == 3
    assert np.array_equal(grid.erode(grown, 3.0), dot)
    assert not grid.opening(dot, 3.0).any()


def test_holes_are_filled_and_openings_to_the_border_are_not():
    shell = np.ones((7, 7, 7), bool)
    shell[3, 3, 3] = shell[3, 3, 5:] = False
    filled = fill_holes(shell)
    assert filled[3, 3, 3]
    assert not filled[3, 3, 6]
    assert not largest(np.zeros((3, 3, 3), bool)).any()
    assert components(shell)[1].tolist() == [0, int(shell.sum())]


def test_every_target_names_a_structure_of_the_chest():
    names = {name for entry in structures().values() for name in entry.values()}
    assert all(hasattr(Chest, name) for name in names)
    assert HounsfieldSegmenter().fingerprint["name"] == "hounsfield"
