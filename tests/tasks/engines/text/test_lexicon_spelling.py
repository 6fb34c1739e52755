"""Misspelled words of the vocabulary."""

import pytest

from tasks.engines.text.lexicon.spelling import Spelling

SPELLING = Spelling(
    ["pneumothorax", "effusion", "calcification", "fracture", "pleural", "opacity"],
    ["clarification", "pleura"],
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("pnuemothorax", "pneumothorax"), ("pneumothrax", "pneumothorax"),
        ("effussion", "effusion"), ("efusion", "effusion"), ("plueral", "pleural"),
        ("calcificaton", "calcification"), ("opaciity", "opacity"),
    ],
)  # fmt: skip
def test_a_slip_is_understood(written, meant):
    assert SPELLING.correct(written) == meant


@pytest.mark.parametrize(
    "word",
    ["pneumothorax", "clarification", "pleura", "diffusion", "infusion", "fractured",
     "opaque", "noeffusion", "left", "no", "not", "right", "pneumonectomy", "x" * 5000,
     "pneumo123"],
)  # fmt: skip
def test_another_word_is_left_alone(word):
    assert SPELLING.correct(word) is None
