"""Predictions as files: masks that lie on the image, JSON that says where everything is."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from model.data.images import read_image
from model.inference.predict import Prediction
from model.inference.prompts import ask
from model.inference.records import PredictionRecord, record, write
from storage.records import Box, Grounding, Mask, Tag, VolumeBox
from tests.model.inference.memorized import DISC_XYXY, block, ct_affine

TEXT = "The heart ♥ and the aorta."


def mask_of(voxels) -> Mask:
    return Mask.of(voxels, ct_affine())


@pytest.fixture
def ct(pictures: dict[str, Path]) -> Prediction:
    larger = block()
    larger[4:40, 20:30, 12] = True
    box = VolumeBox(8, 20, 10.123456, 24, 34, 18, 0.87654321)
    tags = (
        Tag(4, 9, "heart", "heart", "anatomy", Grounding(None, mask_of(block()))),
        Tag(20, 25, "aorta", "aorta", "anatomy", Grounding((box,), mask_of(larger))),
        Tag(10, 11, "♥", None, None, Grounding((), mask_of(np.zeros_like(larger)))),
    )
    path = pictures["ct.nii.gz"]
    return Prediction(path, read_image(path), ask("report"), TEXT, tags, complete=True)


def test_masks_of_a_ct_lie_on_the_grid_of_its_file_and_may_overlap(
    ct: Prediction, tmp_path: Path
) -> None:
    found = write(ct, tmp_path / "out", "some model")
    heart, aorta, empty = (tag.mask for tag in found.tags)
    assert heart is not None and heart.file is not None  # noqa: PT018
    assert aorta is not None and aorta.file is not None  # noqa: PT018
    stored = nib.Nifti1Image.from_filename(tmp_path / "out" / heart.file)
    np.testing.assert_allclose(stored.affine, ct_affine(), atol=1e-4)
    np.testing.assert_array_equal(np.asarray(stored.dataobj), block())
    other = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "out" / aorta.file).dataobj)
    assert (other & block()).sum() == block().sum()
    assert heart.voxel_count == block().sum()
    assert heart.volume_mm3 == pytest.approx(block().sum() * 1.5 * 2.5, rel=1e-3)
    assert empty is not None
    assert empty.file is None
    assert empty.voxel_count == 0


def test_boxes_of_a_ct_are_in_voxels_and_millimetres(ct: Prediction) -> None:
    [box] = record(ct, "m").tags[1].boxes or []
    assert box.frame == "voxels"
    assert box.box == [8, 20, 10.12, 24, 34, 18]
    assert box.score == 0.8765
    assert box.corners_ras_mm is not None
    center = np.mean(box.corners_ras_mm, axis=0)
    middle = np.array([16, 27, 14.06]) - 0.5
    np.testing.assert_allclose(center, ct_affine()[:3, :3] @ middle + ct_affine()[:3, 3], atol=0.02)


def test_json_comes_back_and_offsets_are_code_points(ct: Prediction, tmp_path: Path) -> None:
    found = write(ct, tmp_path, "some model")
    content = json.loads((tmp_path / "prediction.json").read_text("utf-8"))
    assert PredictionRecord.model_validate(content) == found
    for tag in content["tags"]:
        assert content["text"][tag["start"] : tag["end"]] == tag["phrase"]
    assert content["task"] == "report"
    assert content["model"] == "some model"
    assert "not for clinical decisions" in content["notice"]
    assert (tmp_path / "overlay.png").stat().st_size > 1000


def test_a_radiograph_has_pixels_x_first_and_masks_as_png(
    pictures: dict[str, Path], tmp_path: Path
) -> None:
    path = pictures["film.png"]
    source = read_image(path)
    left, top, right, bottom = DISC_XYXY
    disc = np.zeros(source.grid.shape, np.bool_)
    disc[0, top:bottom, left:right] = True
    box = Box(left, top, right, bottom, 0.5)
    found_tag = Tag(4, 9, "heart", "heart", "anatomy", Grounding((box,), Mask.of(disc, None)))
    prediction = Prediction(path, source, ask("report"), TEXT, (found_tag,), complete=True)
    found = write(prediction, tmp_path, "m")
    [tag] = found.tags
    assert tag.boxes is not None and tag.mask is not None and tag.mask.file  # noqa: PT018
    assert tag.boxes[0].box == list(DISC_XYXY)
    assert tag.boxes[0].frame == "pixels"
    assert tag.boxes[0].corners_ras_mm is None
    assert tag.mask.volume_mm3 is None
    with Image.open(tmp_path / tag.mask.file) as stored, Image.open(path) as original:
        assert stored.size == original.size
        np.testing.assert_array_equal(np.asarray(stored) > 0, disc[0])


def test_masks_of_an_earlier_prediction_do_not_stay(ct: Prediction, tmp_path: Path) -> None:
    write(ct, tmp_path, "m")
    write(replace(ct, tags=ct.tags[1:]), tmp_path, "m")
    assert [path.name for path in tmp_path.glob("mask-*")] == ["mask-01-aorta.nii.gz"]


def test_a_prediction_that_is_half_written_has_no_json(
    ct: Prediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(ct, tmp_path, "m")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.inference.records.draw", full)
    with pytest.raises(OSError, match="No space left"):
        write(ct, tmp_path, "m")
    assert not (tmp_path / "prediction.json").exists()
