"""Cleaning: cases of several kinds, and what must hold for any text."""

import re
from itertools import chain
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engines.text.cleaning import RulesCleaner

CASES = yaml.safe_load(Path(__file__).with_name("cleaning_cases.yaml").read_text())
FLAT = [
    pytest.param(before, after, id=f"{kind}: {before[:60]}")
    for kind, cases in CASES.items()
    for before, after in cases
]
SENTENCES = [case[0] for case in chain.from_iterable(CASES.values()) if case[0]]
FUNCTION_WORDS = {"no", "is", "are", "and", "a", "an"}

reports = st.lists(st.sampled_from(SENTENCES), max_size=5).map(" ".join)


@pytest.fixture(scope="module")
def cleaner():
    return RulesCleaner()


def words(text):
    return re.findall(r"\w+", text.lower())


@pytest.mark.parametrize(("before", "after"), FLAT)
def test_case(cleaner, before, after):
    cleaned = cleaner.clean([before])[0]
    assert cleaned.text == after
    assert bool(cleaned.removed) == (words(before) != words(after))


def test_there_are_enough_cases():
    assert len(FLAT) >= 60


@given(st.one_of(st.text(max_size=120), reports))
@settings(max_examples=300)
def test_cleaning_twice_is_cleaning_once(text):
    once = RulesCleaner().clean([text])[0].text
    assert RulesCleaner().clean([once])[0].text == once


@given(st.one_of(st.text(alphabet="abnoX .,;-/()12\n", max_size=80), reports))
@settings(max_examples=300)
def test_no_word_is_invented(text):
    cleaned = RulesCleaner().clean([text])[0].text
    assert set(words(cleaned)) <= set(words(text)) | FUNCTION_WORDS


@given(reports)
def test_what_was_removed_is_quoted_from_the_text(text):
    cleaned = RulesCleaner().clean([text])[0]
    assert all(passage in text for passage in cleaned.removed)


def test_real_reports_keep_sides_and_numbers_and_are_clean_for_good(even_texts, cleaner):
    for text, cleaned in zip(even_texts, cleaner.clean(even_texts), strict=True):
        kept = words(cleaned.text)
        assert set(kept) <= set(words(text)) | FUNCTION_WORDS
        for word in ("left", "right", "bilateral", "not", "without"):
            assert kept.count(word) <= words(text).count(word)
        assert cleaner.clean([cleaned.text])[0].text == cleaned.text
        assert "XXXX" not in cleaned.text
