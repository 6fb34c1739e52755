"""Assertion: cases of several genres, and what must hold for any text."""

import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from storage.records import Assertion, Phrase
from tasks.engines.text.assertion import ContextClassifier
from taxonomy.targets import load_taxonomy

CASES = yaml.safe_load(Path(__file__).with_name("assertion_cases.yaml").read_text())
FLAT = [
    pytest.param(case["text"], phrase, answer, id=f"{genre}: {case['text'][:50]} [{phrase}]")
    for genre, cases in CASES.items()
    for case in cases
    for answer in get_args(Assertion)
    for phrase in case.get(answer, ())
]


@pytest.fixture(scope="module")
def classifier():
    return ContextClassifier(load_taxonomy())


def located(text, words):
    target = "left lung" if words.startswith("@") else "pleural effusion"
    start = text.index(words.removeprefix("@"))
    return Phrase(start, start + len(words.removeprefix("@")), target)


@pytest.mark.parametrize(("text", "phrase", "answer"), FLAT)
def test_case(classifier, text, phrase, answer):
    # Every phrase of the sentence is given, as neighbours decide the scope of a cue.
    case = next(c for cases in CASES.values() for c in cases if c["text"] == text)
    words = [w for a in get_args(Assertion) for w in case.get(a, ())]
    phrases = sorted((located(text, w) for w in words), key=lambda p: p.start)
    answers = classifier.classify([text], [phrases])[0]
    assert answers[phrases.index(located(text, phrase))] == answer


def test_there_are_enough_cases():
    assert len(FLAT) >= 150


@given(st.text(max_size=80), st.data())
def test_any_text_and_any_phrases_get_one_answer_each(classifier, text, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    phrases = [
        Phrase(a, b, "heart" if a % 2 else "cardiomegaly")
        for a, b in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    answers = classifier.classify([text, text], [phrases, phrases])
    assert answers[0] == answers[1]
    assert len(answers[0]) == len(phrases)


def test_sentences_are_judged_alone(classifier):
    text = "No effusion. Effusion on the right."
    phrases = [Phrase(3, 11, "pleural effusion"), Phrase(13, 21, "pleural effusion")]
    assert classifier.classify([text], [phrases]) == [["absent", "present"]]


@pytest.mark.parametrize("answer", ["absent", "probable", "possible"])
def test_a_list_of_thousands_is_judged_to_its_end(classifier, answer):
    item = {"absent": "no", "probable": "likely"}.get(answer, answer) + " effusion, "
    start = item.index("effusion")
    places = range(start, 1500 * len(item), len(item))
    phrases = [Phrase(i, i + 8, "pleural effusion") for i in places]
    assert classifier.classify([item * 1500], [phrases]) == [[answer] * 1500]


REPEATED = [
    "no ", "possible ", "may represent ", "is not seen, ", "it is gone. ", "which is gone ",
    "- ", "the ", "versus ", "if any, ", "differential includes ", "not seen on the ", "____ ",
    "X", "(", ": no ", "cause of ", "or ", ", ",
]  # fmt: skip


@pytest.mark.parametrize("words", REPEATED)
def test_a_thousand_repeats_of_a_cue_are_judged(classifier, words):
    text = f"Effusion {words * 1000}effusion"
    phrases = [Phrase(0, 8, "pleural effusion"), Phrase(len(text) - 8, len(text), "tumor")]
    assert len(classifier.classify([text], [phrases])[0]) == 2


def test_work_grows_linearly_with_the_length_of_a_sentence(classifier):
    def steps(repeats):
        text = "no effusion, " * repeats
        phrases = [Phrase(i, i + 8, "tumor") for i in range(3, len(text), 13)]
        counted = 0

        def count(frame, event, argument):
            nonlocal counted
            counted += event == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            classifier.classify([text], [phrases])
        finally:
            sys.settrace(before)
        return counted

    steps(1)
    assert steps(400) < 4.4 * steps(100)


def test_the_fingerprint_names_the_cues(classifier):
    assert classifier.fingerprint["name"] == "context"
    assert len(classifier.fingerprint["cues"]) == 64
