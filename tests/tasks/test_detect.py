from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from storage.images.types import Radiograph
from storage.records import Box, Site
from storage.shards import table_from_rows
from tasks.detect import detect_boxes
from tasks.engines.protocols import EngineAnswerError, Ungrounded

BOX = Box(0.0, 0.0, 2.0, 2.0, 0.5)


class _InBatches:
    """Notes how many radiographs it is given at a time; each gets one box."""

    fingerprint = {"name": "toy", "version": "1"}  # noqa: RUF012
    batch_size = 3

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, *_: Any) -> list[list[Box] | Ungrounded]:
        raise AssertionError("a detector that takes batches is given batches")

    def detect_batch(
        self, images: Sequence[tuple[Radiograph, Sequence[Site]]]
    ) -> list[list[list[Box] | Ungrounded]]:
        self.batches.append(len(images))
        return [[[BOX] for _ in sites] for _, sites in images]


def _tables(folder: Path, studies: int) -> tuple[pa.Table, pa.Table]:
    """Studies of one radiograph each, of which the second is missing, and one phrase each."""
    rows: list[dict[str, Any]] = []
    phrases: list[dict[str, Any]] = []
    for number in range(studies):
        key = {"dataset": "toy", "split": "test", "study_id": f"s{number}"}
        file = folder / f"{number}.png"
        if number != 1:
            Image.fromarray(np.full((4, 4), 99, np.uint8)).save(file)
        image = {"image_id": f"i{number}", "uri": str(file), "modality": "CR", "view": "PA"}
        rows.append(key | {"images": [image]})
        modifiers: dict[str, Any] = {"laterality": None, "zones": [], "count": None}
        phrases.append(key | {"target": "heart", "modifiers": modifiers})
    return table_from_rows("studies", rows), table_from_rows("positives", phrases)


class _FindsNothing(_InBatches):
    def detect_batch(
        self, images: Sequence[tuple[Radiograph, Sequence[Site]]]
    ) -> list[list[list[Box] | Ungrounded]]:
        return [[[] for _ in sites] for _, sites in images]


def test_an_empty_list_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(EngineAnswerError, match="toy 1 gave an empty list for i0: heart"):
        detect_boxes(*_tables(tmp_path, 1), _FindsNothing())


def test_batches_go_across_studies(tmp_path: Path) -> None:
    detector = _InBatches()
    made = detect_boxes(*_tables(tmp_path, 8), detector)
    assert detector.batches == [2, 3, 2]  # of three each, less the missing image
    assert made.rows["study_id"].to_pylist() == [f"s{n}" for n in range(8) if n != 1]
    assert [(r.study_id, r.reason) for r in made.rejects] == [("s1", "image_not_found")]
    assert (made.rows_in, made.rows_out) == (8, 7)
