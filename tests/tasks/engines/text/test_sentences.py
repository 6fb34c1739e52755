"""Sentence splitting: report prose as it is, and what must hold for any text."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.engines.text.sentences import split_sentences

CASES = [
    "Lungs are clear.|No effusion.",
    "1. Heart size normal.|2. Lungs clear.",
    "1. No effusion|2. No pneumothorax\n|3. Normal heart",
    "(1) Effusion.|(2) Nodule.",
    "clear.|No effusion",
    "Seen by Dr. Smith at 3 p.m. on Monday.|Clear.",
    "Nodule of 2.5 cm vs. 3.0 cm.|No mass.",
    "Approx. 3 cm nodule.",
    "Bilat. effusions.",
    "Effusions bilat.|Heart normal.",
    "Devices, e.g. tubes, are in place.|Clear.",
    "? pneumonia.|Normal?|Yes.",
    "A (?small) effusion.",
    "The no. 5 rib.|Pneumothorax? |No.",
    "Seen on image 2.|No pneumothorax",
    "XXXX.|XXXX opacity.|(See above.)|Next.",
    "- Effusion\n|- Nodule",
    "FINDINGS:\nLungs clear.",
    "There is a small\nright effusion.|Clear.",
    "No pneumothorax\n|Heart size normal\n|Lungs clear",
    "Opacity in the\nRight lower lobe.",
    "NO EFFUSION\n|CARDIOMEGALY\n|NODULE IN THE\nRIGHT LOWER LOBE",
    "Lungs clear\n|NG tube in place\n|CHF",
    "no effusion\n|mild cardiomegaly\n|nodule in the\nright lower lobe",
    "no effusion,\ncardiomegaly",
    "Lines:\nNG tube.",
    f"A line that was wrapped because it {'really ' * 4}is that long\nCT.",
    "First line.\n\n|second paragraph",
    "Fracture of T12.|3 mm nodule.",
    "R. lung is clear.",
    "No acute abnormality. .",
    "No change!|Stable...|Fine.",
    # wrapped lines in capitals, told by their widths and by words that cannot end a sentence
    "THERE IS NO FOCAL\nCONSOLIDATION.|NO LARGE\nPLEURAL EFFUSION.",
    "THE HEART IS ENLARGED AND\nTHE LUNGS ARE CLEAR.|SMALL\nLEFT EFFUSION.",
    "Lungs clear\n|Effusion on the left\n|Heart normal",
    "Effusion small\n|Heart normal",
    # a finding and its answer by line
    "PNEUMOTHORAX: NO\n|PLEURAL EFFUSION: LEFT, SMALL",
    "Pneumothorax: no\n|Pleural effusion: left, small",
    "IMPRESSION:\n1. No effusion\n|2. Nodule",
    "No pneumothorax – heart is enlarged.",
]


@pytest.mark.parametrize("case", CASES)
def test_case(case):
    expected = [part.strip() for part in case.split("|")]
    joined = "".join(part if part[-1:].isspace() else part + " " for part in case.split("|"))
    assert [joined[a:b] for a, b in split_sentences(joined)] == expected


def test_missing_space_after_a_full_stop():
    text = "Lungs are clear.No effusion.2. Normal heart.X-ray J.Smith."
    parts = [text[a:b] for a, b in split_sentences(text)]
    assert parts == ["Lungs are clear.", "No effusion.", "2. Normal heart.", "X-ray J.Smith."]


@pytest.mark.parametrize("rule", ["_" * 78, "---", "======", "* * *".replace(" ", "")])
def test_a_separator_line_is_text_of_no_sentence(rule):
    text = f"No pneumothorax.\n{rule}\nFINAL REPORT"
    parts = [text[a:b] for a, b in split_sentences(text)]
    assert parts == ["No pneumothorax.", "FINAL REPORT"]


@given(st.text(alphabet=st.characters(exclude_characters="_-=*~#–")))
def test_spans_cover_everything_but_spaces_in_order(text):
    spans = split_sentences(text)
    assert all(a < b for a, b in spans)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    covered = {i for a, b in spans for i in range(a, b)}
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)
    assert all(not text[a].isspace() and not text[b - 1].isspace() for a, b in spans)


def test_long_runs_of_white_space_are_gaps():
    gap = " " * 300_000
    text = f"Clear.{gap}No{gap}\t effusion.{gap}\n{gap}No mass.{gap}"
    parts = [" ".join(text[a:b].split()) for a, b in split_sentences(text)]
    assert parts == ["Clear.", "No effusion.", "No mass."]


def test_real_sentences_are_neither_glued_nor_torn(even_texts):
    sentences = [t[a:b] for t in even_texts for a, b in split_sentences(t)]
    assert len(sentences) > 10_000
    assert not [s for s in sentences if re.search(r"[a-z]\. The(re)? ", s)]
    torn = [s for s in sentences if not any(map(str.isalpha, s)) and len(s) > 3]
    assert len(torn) < len(sentences) / 1000
