"""Which sentences may be asked about once for all reports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.engines.llm.protocols.units import is_context_free, rejoin, sentence_places


@pytest.mark.parametrize(
    "sentence",
    [
        "The heart is normal in size.",
        "There is no pneumothorax.",
        "No focal consolidation that would suggest pneumonia.",
        "1. No acute disease.",
        "Clear lungs.",
        "Both lungs are clear.",
        "Mild cardiomegaly, unchanged.",
    ],
)
def test_sentences_that_stand_alone(sentence: str) -> None:
    assert is_context_free(sentence)


@pytest.mark.parametrize(
    ("sentence", "previous"),
    [
        ("This may represent atelectasis.", ""),
        ("It measures 8 mm.", ""),
        ("The former is more likely.", ""),
        ("But a small effusion remains.", ""),
        ("and the left one is small.", ""),
        ("None.", ""),
        ("Normal.", ""),
        ("2. Unchanged.", ""),
        ("Differential includes pneumonia.", ""),
        ("Small effusion.", "Left:"),
    ],
)
def test_sentences_that_need_those_before_them(sentence: str, previous: str) -> None:
    assert not is_context_free(sentence, previous)


def test_a_sentence_takes_two_sentences_along_at_most() -> None:
    text = "The heart is large. A nodule is seen. A cyst is seen.  These are old."
    units = [place.unit for place in sentence_places(text)]
    assert [unit.before for unit in units] == ["", "", "", "A nodule is seen. A cyst is seen."]


def test_the_same_sentence_is_the_same_unit_wherever_it_stands() -> None:
    (one,), (_, other) = (
        sentence_places("No\n effusion."),
        sentence_places("Clear lungs. No effusion."),
    )
    assert one.unit == other.unit
    (_, pointing), (_, elsewhere) = (
        sentence_places(f"{a} is seen. It is old.") for a in ("Cyst", "Scar")
    )
    assert pointing.unit != elsewhere.unit


@given(st.lists(st.sampled_from(["Heart is large.", "No effusion.", "Clear."]), max_size=6))
def test_rejoined_as_they_were_sentences_give_the_text(sentences: list[str]) -> None:
    text = " ".join(sentences)
    places = sentence_places(text)
    joined, starts = rejoin(text, places, [place.unit.sentence for place in places])
    assert joined == text
    assert starts == [place.start for place in places]


def test_a_dropped_sentence_takes_its_gap_along() -> None:
    text = "Old film. Heart is large.\nNo effusion. Thank you."
    joined, starts = rejoin(
        text, sentence_places(text), ["", "Heart is large.", "No effusion.", ""]
    )
    assert joined == "Heart is large.\nNo effusion."
    assert starts[1:3] == [0, 16]
