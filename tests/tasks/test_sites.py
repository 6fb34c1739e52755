from pathlib import Path
from typing import Any

from storage.images.header_correction import HeaderCorrection
from storage.shards import table_from_rows
from tasks.sites import image_files


def test_the_file_of_a_corrected_volume_decides_about_its_masks() -> None:
    """Its digest would otherwise be that of a file that is not there."""
    path = Path("/data/train_1_a_1.nii.gz")
    uri = HeaderCorrection(1, -1024, (0.7, 0.7, 1.5)).uri(path)
    key: dict[str, Any] = {"dataset": "d", "split": "train", "study_id": "s"}
    image = {"image_id": "i", "uri": uri, "modality": "CT", "view": None}
    study = key | {"images": [image | {"shape": None, "spacing_mm": None}], "source": "made up"}
    rest = dict.fromkeys(("patient_id", "findings", "impression"), None) | {"labels": []}
    phrase = {"section": "findings", "start": 0, "end": 4, "phrase": "lung", "target": "right lung"}
    said = {"category": "anatomy", "match": "exact", "assertion": "present"}
    modifiers: dict[str, Any] = {"modifiers": {"laterality": None, "zones": [], "count": None}}
    studies = table_from_rows("studies", [study | rest])
    positives = table_from_rows(
        "positives", [key | phrase | said | modifiers | {"by_rules": False}]
    )
    assert image_files(studies, positives, volumes=True) == [path]
