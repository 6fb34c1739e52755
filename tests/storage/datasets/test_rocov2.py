from pathlib import Path

import pytest
from PIL import Image

from storage.datasets.reader import DatasetError, Study
from storage.datasets.registry import find_declaration
from storage.images.vocabulary import is_groundable
from storage.rejects import Reject

FIRST, SECOND = "ROCOv2_2023_train_000001", "ROCOv2_2023_train_000002"


def _read(root: Path) -> list[Study | Reject]:
    reader = find_declaration("rocov2").open(root)
    return list(reader.read(reader.records()))


@pytest.mark.parametrize("folder", ["train", "train_images", "train_images/train", "images"])
def test_figures_are_found_at_any_depth(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    Image.new("L", (30, 20)).save(tmp_path / folder / f"{FIRST}.jpg")
    (tmp_path / "train_captions.csv").write_text(
        f'ID,Caption\n{FIRST},"Axial CT,\n showing a 3 µm cavity."\n{SECOND},Left effusion.\n'
    )
    first, second = _read(tmp_path)
    assert isinstance(first, Study)
    assert isinstance(second, Study)
    assert (first.findings, first.impression) == ("Axial CT, showing a 3 µm cavity.", None)
    [image] = first.images
    assert (image.image_id, image.modality, image.shape) == (FIRST, None, (20, 30))
    assert not is_groundable(image.view)  # neither modality nor plane is known
    assert second.images[0].shape is None


def test_splits_and_rows_that_are_no_captions(tmp_path: Path) -> None:
    below = tmp_path / "ROCOv2"
    below.mkdir()
    (below / "valid_captions.csv").write_text(
        "ID,Caption\na,One.\na,Other.\n,Nobody.\nb,Same.\nb,Same.\n../../c,Out.\nd\n"
    )
    (below / "test_captions.csv").write_text("ID,Caption\na.jpg,A caption.\n")
    reader = find_declaration("rocov2").open(tmp_path)
    records = list(reader.records())
    assert {record.split for record in records} == {"validate", "test"}
    results = list(reader.read(records))
    reasons = [r.reason if isinstance(r, Reject) else r.findings for r in results]
    assert reasons == [
        "rows_disagree",
        "study_id_missing",
        "Same.",
        "Out.",
        "row_malformed",
        "A caption.",
    ]
    outside = results[3]
    assert isinstance(outside, Study)
    assert [r.reason for r in outside.left_out] == ["path_outside_source"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no captions"):
        _read(tmp_path / "empty")
