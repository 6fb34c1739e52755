"""A small tree in the layout of CT-RATE, with made-up texts and tiny volumes."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from storage.datasets.reader import DatasetError, DatasetReader, Study, StudyImage
from storage.datasets.registry import find_declaration
from storage.images.loading import is_volume, load_volume
from storage.rejects import Reject

LABELS = "VolumeName,Lung nodule,Lung opacity"
SPACING = (0.7, 0.8, 1.5)
LPS = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])


def _chest_hu() -> np.ndarray:
    """Lungs, soft tissue and bone, in shares that a chest has; the first voxel is marked."""
    rng = np.random.default_rng(0)
    hu = rng.normal(40, 20, (40, 30, 20))
    hu[:20] = rng.normal(-850, 50, (20, 30, 20))
    hu[38:] = 900
    hu[0, 0, 0] = 1234
    return np.rint(hu).astype(np.int16)


HU = _chest_hu()


def _volume(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def _raw(path: Path) -> None:
    """As the first release has it: stored values, and no spacing."""
    _volume(path, HU + 1024, np.diag([-1.0, -1.0, 1.0, 1.0]))


def _write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    dataset = tmp_path / "dataset"
    header = "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN"
    given = 'Not given.,Not given.,"A nodule, 4 mm.",Nodule.'
    _write(
        dataset / "radiology_text_reports/train_reports.csv",
        header,
        f"train_1_a_1.nii.gz,{given}",
        f"train_1_a_2.nii.gz,{given}",
        "train_2_a_1.nii.gz,,,Clear lungs.,Not given.",
        "train_2_b_1.nii.gz,,,Not given.,Not given.",
        "train_3_a_1.nii.gz,,,Clear lungs.,Normal.",
        "train_3_a_2.nii.gz,,,Other lungs.,Normal.",
        "unnamed,,,Clear lungs.,Normal.",
        "train_4_a_1.nii.gz,too short",
        f"train_1267_a_4.nii.gz,{given}",
        f"train_6_a_1.nii.gz,{given}",
    )
    _write(
        dataset / "radiology_text_reports/validation_reports.csv",
        header,
        f"valid_1_a_1.nii.gz,{given}",
    )
    _write(
        dataset / "multi_abnormality_labels/train_predicted_labels.csv",
        LABELS,
        "train_1_a_1.nii.gz,1,0",
        "train_1_a_2.nii.gz,1,0",
        "train_2_a_1.nii.gz,0,maybe",
    )
    columns = "VolumeName,XYSpacing,RescaleIntercept,RescaleSlope,ZSpacing"
    rescale = '"[0.7, 0.8]",-1024,1'
    _write(
        dataset / "metadata/train_metadata.csv",
        columns,
        f"train_1_a_1.nii.gz,{rescale},1.5",
        f"train_1_a_2.nii.gz,{rescale},1.5",
        f"train_1267_a_4.nii.gz,{rescale},nan",
        f"train_6_a_1.nii.gz,{rescale},1.5",
    )
    _write(dataset / "metadata/validation_metadata.csv", columns, f"valid_1_a_1,{rescale},1.5")
    return dataset


def _read(root: Path) -> tuple[DatasetReader, dict[str, Study | Reject]]:
    reader = find_declaration("ct-rate").open(root)
    results = list(reader.read(reader.records()))
    return reader, {result.study_id: result for result in results}


def _study(result: Study | Reject) -> Study:
    assert isinstance(result, Study)
    return result


def _check(image: StudyImage) -> None:
    """That a consumer of the uri gets Hounsfield units, the spacing and the right way round."""
    assert is_volume(Path(image.uri))
    volume = load_volume(Path(image.uri))
    np.testing.assert_array_equal(volume.hu, HU[::-1, ::-1])
    np.testing.assert_allclose(volume.spacing_xyz_mm, SPACING, rtol=1e-6)
    np.testing.assert_allclose(image.spacing_mm or (), SPACING, rtol=1e-6)
    assert image.shape == HU.shape
    assert volume.stored_affine is not None
    np.testing.assert_allclose(volume.stored_affine, LPS, rtol=1e-6)


def test_volumes_of_both_releases_come_in_hounsfield_units(root: Path) -> None:
    _raw(root / "train/train_1/train_1_a/train_1_a_1.nii.gz")
    _raw(root / "train/train_1/train_1_a/train_1_a_2.nii.gz")
    _raw(root / "train/train_1267/train_1267_a/train_1267_a_4.nii.gz")
    # replaced by the user with the corrected file, in the folder of the first release
    _volume(root / "train/train_6/train_6_a/train_6_a_1.nii.gz", HU, LPS)
    _volume(root / "train_fixed/train_1/train_1_a/train_1_a_2.nii.gz", HU, LPS)
    _volume(root / "train_fixed/train_1/train_1_a/._train_1_a_2.nii.gz", HU, LPS)
    _raw(root / "other/valid_1/valid_1_a/valid_1_a_1.nii.gz")
    reader, results = _read(root)
    study = _study(results["train_1_a"])
    assert [i.image_id for i in study.images] == ["train_1_a_1", "train_1_a_2"]
    assert study.source == "CT-RATE, corrected and first release"
    assert study.images[0].uri.endswith("#slope=1&intercept=-1024&spacing=0.7,0.8,1.5")
    assert "train_fixed" in study.images[1].uri
    assert _study(results["train_6_a"]).source == "CT-RATE, corrected release"
    assert _study(results["valid_1_a"]).source == "CT-RATE, first release"
    for name in ("train_1_a", "train_6_a", "valid_1_a"):
        for image in _study(results[name]).images:
            _check(image)
    unknown = _study(results["train_1267_a"])
    assert not unknown.images
    assert [(r.reason, "ZSpacing 'nan'" in r.detail) for r in unknown.left_out] == [
        ("geometry_missing", True)
    ]
    found = "\n".join(reader.found())  # type: ignore[attr-defined]
    assert "train_fixed (corrected release: Hounsfield units)" in found
    assert "other (release told by the values of each volume)" in found


def test_scans_labels_and_what_is_wrong_with_rows(root: Path) -> None:
    reader, results = _read(root.parent)
    records = {record.key: record for record in reader.records()}
    assert records["valid/valid_1_a"].patient_id == "valid_1"
    assert records["valid/valid_1_a"].split == "validate"
    first = _study(results["train_1_a"])
    assert (first.findings, first.impression) == ("A nodule, 4 mm.", "Nodule.")
    assert first.patient_id == "train_1"
    assert first.labels == {"ct-rate:Lung nodule": 1, "ct-rate:Lung opacity": 0}
    assert [r.reason for r in first.left_out] == ["image_not_found"] * 2
    second = _study(results["train_2_a"])
    assert (second.impression, second.labels) == (None, {"ct-rate:Lung nodule": 0})
    assert "label_unreadable" in [r.reason for r in second.left_out]
    assert _study(results["train_2_b"]).findings is None
    bad = {name: r.reason for name, r in results.items() if isinstance(r, Reject)}
    assert bad == {
        "train_3_a": "rows_disagree",
        "row 7": "study_id_missing",
        "row 8": "row_malformed",
    }


def test_what_cannot_be_read_at_all_is_one_sentence(root: Path) -> None:
    with pytest.raises(DatasetError, match="holds no reports of CT-RATE"):
        _read(root / "metadata")
