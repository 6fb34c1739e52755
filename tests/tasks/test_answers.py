"""Answers that cannot be right are rejected and counted; those of no sense end the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from storage.images.types import Radiograph, Volume
from storage.records import Box, Phrase, Site
from storage.shards import table_from_rows
from tasks.clean import clean_reports
from tasks.detect import detect_boxes
from tasks.engines.protocols import (
    CleanedText,
    EngineAnswerError,
    Failure,
    RulesAssertion,
    Segmentation,
    Ungrounded,
)
from tasks.extract import extract_phrases
from tasks.filter import filter_positives
from tasks.segment import segment_masks
from tasks.step import StepOutput
from taxonomy.targets import load_taxonomy

KEY = {"dataset": "toy", "split": "test", "study_id": "s"}
ROWS, COLUMNS = 40, 60
SHAPE = (6, 5, 4)
TEXT = "Heart large."
NAN, INFINITY = float("nan"), float("inf")


class _Engine:
    """Gives the same answer to whatever it is asked."""

    fingerprint = {"name": "toy", "version": "1"}  # noqa: RUF012

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def detect(self, _: Radiograph, sites: Sequence[Site]) -> Any:
        return [self.answer for _ in sites]

    def segment(self, _: Volume, sites: Sequence[Site]) -> Any:
        return [self.answer for _ in sites]

    def clean(self, _: Sequence[str]) -> Any:
        return self.answer

    def extract(self, _: Sequence[str]) -> Any:
        return self.answer

    def classify(self, *_: Any) -> Any:
        return self.answer


class _Twice(_Engine):
    """Answers once too often."""

    def detect(self, _: Radiograph, sites: Sequence[Site]) -> Any:
        return [self.answer for _ in (*sites, None)]

    def segment(self, _: Volume, sites: Sequence[Site]) -> Any:
        return [self.answer for _ in (*sites, None)]


def _tables(file: Path, modality: str) -> tuple[pa.Table, pa.Table]:
    image = {"image_id": "i", "uri": str(file), "modality": modality, "view": None}
    modifiers: dict[str, Any] = {"laterality": None, "zones": [], "count": None}
    return (
        table_from_rows("studies", [KEY | {"images": [image]}]),
        table_from_rows("positives", [KEY | {"target": "heart", "modifiers": modifiers}]),
    )


@pytest.fixture
def film(tmp_path: Path) -> tuple[pa.Table, pa.Table]:
    Image.new("L", (COLUMNS, ROWS), 99).save(tmp_path / "film.png")
    return _tables(tmp_path / "film.png", "DX")


@pytest.fixture
def volume(tmp_path: Path) -> tuple[pa.Table, pa.Table]:
    voxels = np.full(SHAPE, -500, np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "ct.nii.gz")
    return _tables(tmp_path / "ct.nii.gz", "CT")


REPORTS = table_from_rows("clean_reports", [KEY | {"findings": TEXT}])
PHRASES = table_from_rows(
    "phrases",
    [
        KEY
        | {"section": "findings", "phrase": "Heart", "category": "anatomy"}
        | Phrase(0, 5, "heart").to_row()
    ],
)


def _reasons(made: StepOutput) -> tuple[list[str], list[str]]:
    return [r.reason for r in made.rejects], [r.reason for r in made.discarded]


BAD_BOXES = [
    (Box(NAN, 0, 5, 5, 0.5), "box_not_finite"),
    (Box(0, 0, INFINITY, 5, 0.5), "box_not_finite"),
    (Box(5, 0, 2, 5, 0.5), "box_reversed"),
    (Box(0, 5, 2, 4, 0.5), "box_reversed"),
    (Box(3, 3, 3, 9, 0.5), "box_empty"),
    (Box(-0.5, 3, 0, 9, 0.5), "box_empty"),
    (Box(0, 0, 5, ROWS + 1.5, 0.5), "box_outside_image"),
    (Box(-2, 0, 5, 5, 0.5), "box_outside_image"),
    (Box(900, 900, 950, 950, 0.5), "box_outside_image"),
    (Box(0, 0, 5, 5, NAN), "score_out_of_range"),
    (Box(0, 0, 5, 5, 87), "score_out_of_range"),
    (Box(0, 0, 5, 5, -0.1), "score_out_of_range"),
    (Box(0, 0, 5, 5, None), "score_out_of_range"),  # type: ignore[arg-type]
]


def test_boxes_that_cannot_be_right_are_discarded_and_the_others_kept(
    film: tuple[pa.Table, pa.Table],
) -> None:
    good = Box(1, 2, 3, 4, 0.5)
    given = [box for box, _ in BAD_BOXES]
    made = detect_boxes(*film, _Engine([*given, good]))
    assert _reasons(made) == ([], [reason for _, reason in BAD_BOXES])
    assert (made.rows_in, made.rows_out) == (1, 1)
    [row] = made.rows.to_pylist()
    assert (row["x_min"], row["y_max"], row["instance"]) == (1, 4, 0)
    assert {r.site for r in made.discarded} == {None}


@pytest.mark.parametrize(("box", "reason"), BAD_BOXES)
def test_a_site_without_a_box_left_is_rejected(
    film: tuple[pa.Table, pa.Table], box: Box, reason: str
) -> None:
    made = detect_boxes(*film, _Engine([box]))
    assert _reasons(made) == ([reason], [reason])
    assert made.rejects[0].site is not None
    assert (made.rows_in, made.rows_out, made.rows.num_rows) == (1, 0, 0)


def test_a_box_rounded_beyond_the_border_is_clipped(film: tuple[pa.Table, pa.Table]) -> None:
    box = Box(-0.4, -1, np.float32(COLUMNS + 1), ROWS + 0.5, np.float32(1))  # type: ignore[arg-type]
    made = detect_boxes(*film, _Engine([box]))
    [row] = made.rows.to_pylist()
    assert [row[name] for name in Box.__slots__] == [0, 0, COLUMNS, ROWS, 1]
    assert _reasons(made) == ([], [])


@pytest.mark.parametrize(
    ("voxels", "score", "reason"),
    [
        (np.ones(SHAPE[::-1], np.bool_), 1.0, "mask_wrong_shape"),
        (np.ones(SHAPE[:2], np.bool_), 1.0, "mask_wrong_shape"),
        (np.zeros(SHAPE, np.bool_), 1.0, "mask_empty"),
        (np.ones(SHAPE, np.uint8), 1.0, "mask_not_boolean"),
        (np.full(SHAPE, 0.3, np.float32), 1.0, "mask_not_boolean"),
        (np.ones(SHAPE, np.bool_), NAN, "score_out_of_range"),
        (np.ones(SHAPE, np.bool_), 1.5, "score_out_of_range"),
        (None, 1.0, "mask_wrong_shape"),
    ],
)
def test_a_mask_that_cannot_be_right_is_rejected(
    volume: tuple[pa.Table, pa.Table], voxels: Any, score: float, reason: str
) -> None:
    made = segment_masks(*volume, _Engine(Segmentation(voxels, score)))
    assert _reasons(made) == ([reason], [])
    assert (made.rows_in, made.rows_out, made.rows.num_rows) == (1, 0, 0)


def test_a_phrase_outside_its_text_is_discarded() -> None:
    spans = [(-1, 3), (3, 3), (5, 2), (6, len(TEXT) + 1), (900, 905)]
    answer = [Phrase(*span, "heart") for span in spans] + [
        Phrase(0, 5, "no such target"),
        Failure("not_in_sentence", "the engine's own"),
        Phrase(0, 5, "heart"),
    ]
    made = extract_phrases(REPORTS, _Engine([answer]), load_taxonomy())
    discarded = ["span_outside_text"] * len(spans) + ["unknown_target", "not_in_sentence"]
    assert _reasons(made) == ([], discarded)
    assert made.rows["phrase"].to_pylist() == ["Heart"]


def test_an_assertion_that_there_is_not_is_rejected() -> None:
    made = filter_positives(REPORTS, PHRASES, _Engine([["yes"]]), ["present"])
    assert _reasons(made) == (["assertion_unknown"], [])


def test_what_the_rules_did_in_a_models_place_is_marked_in_its_row() -> None:
    studies = table_from_rows("studies", [KEY | {"findings": "Old. " + TEXT}])
    cleaned = CleanedText(TEXT, ("Old.",), ("Old.",))
    reports = clean_reports(studies, _Engine([cleaned]), "any").rows
    assert reports["by_rules"].to_pylist() == [["Old."]]

    found = [Phrase(0, 5, "heart", by_rules=True), Phrase(6, 11, "cardiomegaly")]
    phrases = extract_phrases(reports, _Engine([found]), load_taxonomy()).rows
    assert phrases["by_rules"].to_pylist() == [True, False]

    stated = filter_positives(reports, phrases, _Engine([["present"] * 2]), ["present"])
    assert stated.rows["by_rules"].to_pylist() == [True, False]
    ruled = [[RulesAssertion("absent"), RulesAssertion("present")]]
    stated = filter_positives(reports, phrases, _Engine(ruled), ["present"])
    assert stated.rows["by_rules"].to_pylist() == [True]
    assert "by the rules" in stated.rejects[0].detail


def test_an_answer_too_few_or_too_many_is_said(
    film: tuple[pa.Table, pa.Table], volume: tuple[pa.Table, pa.Table]
) -> None:
    engine, twice = _Engine([]), _Twice(Ungrounded("not_found", "nothing"))
    studies = table_from_rows("studies", [KEY | {"findings": TEXT}])
    for ask, sentence in [
        (lambda: detect_boxes(*film, twice), "toy 1 gave 2 answers for 1 sites of i:"),
        (lambda: segment_masks(*volume, twice), "toy 1 gave 2 answers for 1 sites of i:"),
        (lambda: clean_reports(studies, engine, "any"), "toy 1 gave 0 answers for 1 texts:"),
        (lambda: extract_phrases(REPORTS, engine, load_taxonomy()), "0 answers for 1 texts:"),
        (lambda: filter_positives(REPORTS, PHRASES, engine, ["present"]), "0 answers for 1 texts"),
        (
            lambda: filter_positives(REPORTS, PHRASES, _Engine([[]]), ["present"]),
            "0 answers for 1 phrases of a text",
        ),
    ]:
        with pytest.raises(EngineAnswerError, match=sentence):
            ask()
