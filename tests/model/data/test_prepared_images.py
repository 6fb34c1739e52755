"""Places survive the way into the model and back, for any size, axes, spacing and tilt."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray

from model.config import VividMedConfig, preset
from model.data.images import Frame, SourceImage, prepare, radiograph_image, read_image
from storage.images.file_grid import FileGrid
from storage.images.types import ImageError, Radiograph
from tests.storage.images.dicom_files import write_ct_slice

RAS = axcodes2ornt("RAS")
AXCODES = [
    tuple(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("LR", "PA", "IS"))
    for signs in product((0, 1), repeat=3)
]


def tiny() -> VividMedConfig:
    return preset("tiny")


def radiograph(rows: int, columns: int) -> SourceImage:
    pixels = np.random.default_rng(0).uniform(0.1, 1, (rows, columns)).astype(np.float32)
    return radiograph_image(Radiograph(pixels, None, None, "DX"))


def write_volume(
    path: Path, hu_ras: NDArray[np.int16], affine_ras: NDArray[np.float64], axcodes: tuple[str, ...]
) -> nib.Nifti1Image:
    """Write a RAS+ volume with other axes; every voxel keeps its place."""
    there = ornt_transform(RAS, axcodes2ornt(axcodes))
    stored = nib.orientations.apply_orientation(hu_ras, there)
    image = nib.Nifti1Image(stored, affine_ras @ inv_ornt_aff(there, hu_ras.shape))
    image.to_filename(path)
    return image


def oblique(spacing_mm: tuple[float, float, float], degrees: float) -> NDArray[np.float64]:
    turn = np.radians(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, :3] = affine[:3, :3] @ np.diag(spacing_mm)
    affine[:3, 3] = (-70.0, 31.5, 12.25)
    return affine


def test_radiograph_is_one_slice_of_three_equal_channels() -> None:
    image, frame = prepare(radiograph(200, 100), tiny())
    assert image.pixels.shape == (3, *image.grid.size)
    assert image.grid.size[0] == 1
    assert torch.equal(image.pixels[0], image.pixels[2])
    assert image.pixels.min() >= 0
    assert image.pixels.max() <= 1
    assert frame.source.shape == (1, 200, 100)


def test_padding_is_zero_and_at_the_far_end() -> None:
    image, _ = prepare(radiograph(201, 97), tiny())
    _, rows, columns = image.grid.content
    assert (rows, columns) != image.grid.size[1:]
    assert not image.pixels[:, :, rows:].any()
    assert not image.pixels[:, :, :, columns:].any()
    assert image.pixels[:, :, :rows, :columns].min() > 0.05


def test_shrinking_averages_rather_than_skips() -> None:
    pixels = np.tile(np.array([0.25, 0.75], np.float32), (512, 256))
    image, _ = prepare(radiograph_image(Radiograph(pixels, None, None, "DX")), tiny())
    _, rows, columns = image.grid.content
    inner = image.pixels[0, 0, :rows, 1 : columns - 1]
    assert torch.allclose(inner, torch.full_like(inner, 0.5), atol=0.06)


def test_black_margin_is_cut_off_and_put_back() -> None:
    pixels = np.zeros((300, 260), np.float32)
    pixels[40:240, 30:130] = 0.5
    image, frame = prepare(radiograph_image(Radiograph(pixels, None, None, "DX")), tiny())
    _, rows, columns = image.grid.content
    assert torch.allclose(image.pixels[:, :, :rows, :columns], torch.tensor(0.5))
    whole = torch.tensor([[0.5, 0.5, 0.5, 1.0, 1.0, 1.0]])
    shares = torch.tensor(image.grid.content) / torch.tensor(image.grid.size)
    box = whole * torch.cat([shares, shares])
    np.testing.assert_allclose(frame.boxes_to_file(box), [[[0, 40, 30], [1, 240, 130]]], atol=1e-4)


def test_image_of_one_grey_is_taken_whole() -> None:
    image, frame = prepare(
        radiograph_image(Radiograph(np.zeros((40, 50), np.float32), None, None, "DX")), tiny()
    )
    assert [part.stop for part in frame.crop] == [1, 40, 50]
    assert not image.pixels.any()


@st.composite
def boxes_of_frames(draw: st.DrawFn) -> tuple[Frame, NDArray[np.float64]]:
    shape = tuple(draw(st.integers(1, 90)) for _ in range(3))
    axes = draw(st.permutations((0, 1, 2)))
    flips = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    grid = FileGrid(shape, tuple(axes), flips, np.eye(4))  # type: ignore[arg-type]
    source = SourceImage(np.ones((1, *grid.array_shape), np.float32), grid)
    _, frame = prepare(source, tiny())
    low = np.array([draw(st.integers(0, n - 1)) for n in shape])
    high = np.array([draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True)])
    return frame, np.stack([low, high]).astype(float)[None]


@settings(max_examples=150, deadline=None)
@given(boxes_of_frames())
def test_box_round_trip_is_far_below_a_pixel(case: tuple[Frame, NDArray[np.float64]]) -> None:
    frame, box = case
    inside = frame.boxes_to_model(box)
    assert inside.shape == (1, 6)
    assert (inside[:, :3] - inside[:, 3:] / 2 >= -1e-6).all()
    assert (inside[:, :3] + inside[:, 3:] / 2 <= 1 + 1e-6).all()
    np.testing.assert_allclose(frame.boxes_to_file(inside), box, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 3000), columns=st.integers(1, 3000), data=st.data())
def test_box_round_trip_on_radiographs_of_any_size(
    rows: int, columns: int, data: st.DataObject
) -> None:
    grid = FileGrid((1, rows, columns))
    _, frame = prepare(SourceImage(np.ones((1, 1, rows, columns), np.float32), grid), tiny())
    y, x = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    box = np.array([[[0, y, x], [1, rows, columns]]], float)
    np.testing.assert_allclose(frame.boxes_to_file(frame.boxes_to_model(box)), box, atol=0.01)


def test_boxes_beyond_the_image_end_with_it() -> None:
    _, frame = prepare(radiograph(64, 100), tiny())
    beyond = torch.tensor([[0.5, 0.5, 0.5, 2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(frame.boxes_to_file(beyond), [[[0, 0, 0], [1, 64, 100]]])
    assert frame.boxes_to_file(torch.zeros(0, 6)).shape == (0, 2, 3)


@pytest.mark.parametrize("axcodes", AXCODES, ids="".join)
def test_marked_block_comes_back_in_place(tmp_path: Path, axcodes: tuple[str, ...]) -> None:
    hu = np.full((31, 26, 13), -1000, np.int16)
    hu[2:-2, 1:-1, :] = 0
    hu[5:17, 12:22, 2:8] = 300
    path = tmp_path / "block.nii.gz"
    stored = write_volume(path, hu, oblique((0.8, 0.9, 3.0), 17), axcodes)
    source = read_image(path)
    assert source.grid.shape == stored.shape
    assert source.grid.affine is not None
    np.testing.assert_allclose(source.grid.affine, stored.affine, atol=1e-4)

    block = np.asarray(stored.dataobj) == 300
    image, frame = prepare(source, tiny())
    inside = frame.mask_to_model(block)
    assert inside.shape == image.grid.size
    bright = image.pixels[0] > 0.9
    assert (bright & inside).sum() > 0.8 * inside.sum()
    back = frame.mask_to_file(torch.where(inside, 8.0, -8.0))
    assert back.shape == block.shape
    assert 2 * (back & block).sum() / (back.sum() + block.sum()) > 0.85

    corners = np.argwhere(block).min(0), np.argwhere(block).max(0) + 1
    box = np.stack(corners).astype(float)[None]
    returned = frame.boxes_to_file(frame.boxes_to_model(box))
    np.testing.assert_allclose(returned, box, atol=1e-3)
    placed = source.grid.corners_ras_mm(returned[0])
    edges = apply_affine(
        oblique((0.8, 0.9, 3.0), 17), np.array(list(product((4.5, 16.5), (11.5, 21.5), (1.5, 7.5))))
    )
    np.testing.assert_allclose(sorted(map(tuple, placed)), sorted(map(tuple, edges)), atol=1e-2)


SHRUNK, GROWN = (61, 300, 260), (9, 33, 47)


@pytest.mark.parametrize("shape", [SHRUNK, GROWN])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_edges_come_back_to_a_quarter_of_a_voxel(shape: tuple[int, int, int], axis: int) -> None:
    _, frame = prepare(SourceImage(np.ones((1, *shape), np.float32), FileGrid(shape)), tiny())
    others = tuple(other for other in range(3) if other != axis)
    scale = frame.tokens.content[axis] / shape[axis]
    centers = torch.arange(frame.tokens.size[axis]) + 0.5
    along = [-1 if one == axis else 1 for one in range(3)]
    for first in range(3, shape[axis] - 3, 5):
        for edge in (first - 0.25, first + 0.25):
            logits = (centers - edge * scale).reshape(along).expand(frame.tokens.size)
            found = np.flatnonzero(frame.mask_to_file(logits).any(axis=others))
            assert found[0] == first


@pytest.mark.parametrize("shape", [SHRUNK, GROWN])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_masks_and_boxes_of_the_same_voxels_agree_in_the_model(
    shape: tuple[int, int, int], axis: int
) -> None:
    _, frame = prepare(SourceImage(np.ones((1, *shape), np.float32), FileGrid(shape)), tiny())
    others = tuple(other for other in range(3) if other != axis)
    apart = []
    for first in range(1, shape[axis] - 1, 1 + shape[axis] // 20):
        mask = np.zeros(shape, np.bool_)
        np.moveaxis(mask, axis, 0)[first:] = True
        low = np.zeros(3)
        low[axis] = first
        box = frame.boxes_to_model(np.array([[low, shape]], float))[0].double()
        edge = (box[axis] - box[axis + 3] / 2) * frame.tokens.size[axis]
        occupied = np.flatnonzero(frame.mask_to_model(mask).numpy().any(axis=others))
        apart.append(occupied[0] - float(edge))
    assert np.abs(apart).max() < 0.51
    # Rounding goes both ways; a grid that is off by half a voxel would not.
    assert abs(np.mean(apart)) < 0.2


def test_array_of_a_ct_runs_to_head_right_front(tmp_path: Path) -> None:
    hu = np.zeros((20, 16, 12), np.int16)
    hu[15, 3, 9] = 1000
    write_volume(tmp_path / "ct.nii", hu, np.diag([1.0, 1.0, 2.0, 1.0]), ("L", "S", "A"))
    source = read_image(tmp_path / "ct.nii")
    assert np.argwhere(source.pixels[0] == 1).tolist() == [[9, 15, 3]]
    assert source.grid.voxel_mm3 == pytest.approx(2.0)


def test_intensities_are_cut_at_three_sigma_of_what_is_above_the_minimum(tmp_path: Path) -> None:
    values = np.random.default_rng(3).normal(0, 200, (30, 30, 30))  # as wide as a CT
    hu = np.rint(values).astype(np.int16)
    hu[:10] = -2048
    hu[20, 20, 20] = 30000
    write_volume(tmp_path / "ct.nii", hu, np.eye(4), ("R", "A", "S"))
    source = read_image(tmp_path / "ct.nii")
    assert source.range_hu is not None
    np.testing.assert_allclose(source.range_hu, (-600, 600), atol=50)
    assert source.pixels.min() == 0
    assert source.pixels.max() == 1
    _, frame = prepare(source, tiny())
    assert [part.start for part in frame.crop] == [0, 10, 0]


def test_another_modality_keeps_its_fractions_and_is_cut_alike(tmp_path: Path) -> None:
    values = np.random.default_rng(3).normal(0.5, 0.01, (30, 30, 30)).astype(np.float32)
    values[:10] = 0
    values[20, 20, 20] = 90
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "mr.nii")
    with pytest.raises(ImageError, match="cannot be Hounsfield units"):
        read_image(tmp_path / "mr.nii")
    source = read_image(tmp_path / "mr.nii", "MR")
    assert source.range_hu is None
    pixels = source.pixels[0][source.pixels[0] > 0]
    assert (source.pixels.min(), source.pixels.max()) == (0, 1)
    assert np.median(pixels) == pytest.approx(0.5, abs=0.05), "of a range of 0.47 to 0.53"


def test_a_volume_of_one_value_is_all_zero(tmp_path: Path) -> None:
    write_volume(tmp_path / "ct.nii", np.full((8, 8, 8), 7, np.int16), np.eye(4), ("R", "A", "S"))
    assert not read_image(tmp_path / "ct.nii").pixels.any()


def test_a_radiograph_has_no_millimetres() -> None:
    grid = radiograph(4, 4).grid
    assert grid.voxel_mm3 is None
    with pytest.raises(ValueError, match="no position in the patient"):
        grid.corners_ras_mm(np.zeros((2, 3)))


def test_a_foreign_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("not an image")
    with pytest.raises(ImageError, match="no DICOM, PNG or JPEG file"):
        read_image(tmp_path / "note.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ImageError, match="holds no DICOM file"):
        read_image(tmp_path / "folder")


def test_a_dicom_series_has_the_ras_grid(tmp_path: Path) -> None:
    pixels = np.full((9, 20, 30), -900, np.int16)
    pixels[3:7, 5:15, 8:26] = 100
    pixels[:, 0, 0] = -1024
    for number, plane in enumerate(pixels):
        # Each step goes 2 mm to the feet.
        write_ct_slice(tmp_path / f"{number}.dcm", plane, position=(-4, 6, -2 * number))
    source = read_image(tmp_path)
    assert source.grid.shape == (30, 20, 9)
    image, frame = prepare(source, tiny())
    bright = torch.where(image.pixels[0] > 0.5, 6.0, -6.0)
    places = np.argwhere(frame.mask_to_file(bright)) + 0.5
    affine = source.grid.affine
    assert affine is not None
    low, high = (f(apply_affine(affine, places - 0.5), axis=0) for f in (np.min, np.max))
    # Patient coordinates of DICOM point left and back, those of the affine right and front.
    np.testing.assert_allclose(low, (4 - 25 * 0.5, -6 - 14 * 0.5, -12), atol=0.3)
    np.testing.assert_allclose(high, (4 - 8 * 0.5, -6 - 5 * 0.5, -6), atol=0.3)
