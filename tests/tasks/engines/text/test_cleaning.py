"""Cleaning: cases of several kinds, and what must hold for any text."""

import re
from itertools import chain
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engines.protocols import CleanedText, Failure
from tasks.engines.text.assertion import ContextClassifier
from tasks.engines.text.cleaning import RulesCleaner
from tasks.engines.text.lexicon import LexiconExtractor
from tasks.engines.text.sentences import split_sentences
from taxonomy.targets import load_taxonomy

CASES = yaml.safe_load(Path(__file__).with_name("cleaning_cases.yaml").read_text())
FLAT = [
    pytest.param(before, after, id=f"{kind}: {before[:60]}")
    for kind, cases in CASES.items()
    for before, after in cases
]
SENTENCES = [case[0] for case in chain.from_iterable(CASES.values()) if case[0]]
FUNCTION_WORDS = {"no", "is", "are", "have", "were", "in", "and", "a", "an", "xxxx"}

reports = st.lists(st.sampled_from(SENTENCES), max_size=5).map(" ".join)


@pytest.fixture(scope="module")
def cleaner():
    return RulesCleaner(TAXONOMY)


def words(text):
    return re.findall(r"\w+", text.lower())


def may_be_left(text):
    """The words of a text, function words, and verbs that agree with a plural."""
    said = set(words(text)) | set(words(text.replace("-\n", "")))  # hyphenated at a line's end
    return said | FUNCTION_WORDS | {word.removesuffix("s") for word in said}


def cleaned_text(text):
    """The text cleaned; itself where a few letters at random are read as another language."""
    [cleaned] = RulesCleaner(TAXONOMY).clean([text])
    return cleaned.text if isinstance(cleaned, CleanedText) else text


@pytest.mark.parametrize(("before", "after"), FLAT)
def test_case(cleaner, before, after):
    (cleaned,) = cleaner.clean([before])
    assert isinstance(cleaned, CleanedText)
    assert cleaned.text == after
    assert bool(cleaned.removed) == (words(before) != words(after))


def test_there_are_enough_cases():
    assert len(FLAT) >= 300


@given(st.one_of(st.text(alphabet=st.characters(codec="latin-1"), max_size=120), reports))
@settings(max_examples=300, deadline=None)
def test_cleaning_twice_is_cleaning_once(text):
    once = cleaned_text(text)
    assert cleaned_text(once) == once


@given(st.one_of(st.text(alphabet="abnoX .,;-/()12\n", max_size=80), reports))
@settings(max_examples=300, deadline=None)
def test_no_word_is_invented(text):
    cleaned = cleaned_text(text)
    assert set(words(cleaned)) <= may_be_left(text)


@given(reports)
def test_what_was_removed_is_quoted_from_the_text(text):
    cleaned = RulesCleaner(TAXONOMY).clean([text])[0]
    assert isinstance(cleaned, CleanedText)
    assert all(passage in text for passage in cleaned.removed)


def test_real_reports_keep_sides_and_numbers_and_are_clean_for_good(even_texts, cleaner):
    for text, cleaned in zip(even_texts, cleaner.clean(even_texts), strict=True):
        kept = words(cleaned.text)
        assert set(kept) <= may_be_left(text)
        for word in ("left", "right", "bilateral", "not", "without"):
            assert kept.count(word) <= words(text).count(word)
        assert cleaner.clean([cleaned.text])[0].text == cleaned.text
        assert kept.count("xxxx") <= words(text).count("xxxx")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Kein Pneumothorax.", "language_not_supported"),
        ("Pas de pneumothorax.", "language_not_supported"),
        ("Heart. " * 20_000, "too_long_to_read"),
    ],
)
def test_a_text_that_cannot_be_read_is_a_failure(cleaner, text, reason):
    [failure] = cleaner.clean([text])
    assert (type(failure), failure.reason) == (Failure, reason)


@pytest.mark.parametrize("lost", ["XXXX", "___", "[**Name**]", "___ XXXX"])
def test_a_lost_word_that_cannot_be_spared_has_one_placeholder(cleaner, lost):
    assert cleaner.clean([f"No {lost} infiltrate."])[0].text == "No XXXX infiltrate."


def test_what_was_removed_is_quoted_as_it_stood(cleaner):
    text = "Clear.\r\nStable\u00a0con\ufb01guration of the ___ ___ heart."
    [cleaned] = cleaner.clean([text])
    assert cleaned.text == "Clear."
    assert cleaned.removed == ("Stable\u00a0con\ufb01guration of the ___ ___ heart.",)


CHANGE = re.compile(
    r"new|resol|clear|gone|subsid|corrected|longer|disappear|improv|wors|smaller|larger|increas"
    r"|decreas|stable|unchang|change|progress|interval|persist|previous|prior|compar|remov|less|more|pulled|retract"
    r"|withdrawn|advanced"
    r"|not (?:well )?\w+ on (?:the )?lateral",  # what another view does not show
    re.IGNORECASE,
)


TAXONOMY = load_taxonomy()
EXTRACTOR = LexiconExtractor(TAXONOMY)
CLASSIFIER = ContextClassifier(TAXONOMY)


def assertions(text):
    [phrases] = EXTRACTOR.extract([text])
    [answers] = CLASSIFIER.classify([text], [phrases])
    found: dict[str, set[str]] = {}
    for phrase, answer in zip(phrases, answers, strict=True):
        if TAXONOMY[phrase.target].category == "abnormality":
            found.setdefault(phrase.target, set()).add(answer)
    return found


PRONOUN = re.compile(r"(?:it|this|that|these|they|which)\b", re.IGNORECASE)


def with_broader(said):
    """A place may be lost with a word: "aortic XXXX calcification" is a calcification."""
    for target, answers in list(said.items()):
        for broader in TAXONOMY[target].parents:
            said.setdefault(broader, set()).update(answers)
    return said


def contradictions(text, cleaned):
    """Targets whose assertion cleaning changed, but for those of sentences about change."""
    sentences = [text[start:end] for start, end in split_sentences(text)]
    compared = [
        s
        for s, following in zip(sentences, [*sentences[1:], ""], strict=False)
        if CHANGE.search(s) or (PRONOUN.match(following) and CHANGE.search(following))
    ]
    rewritten = cleaned_text("\n\n".join(compared))
    exempt = with_broader(assertions("\n\n".join((*compared, rewritten))))
    before = with_broader(assertions(text))
    return [
        target
        for target, answers in assertions(cleaned).items()
        if target not in exempt and not answers <= before.get(target, set())
    ]


def test_cleaning_changes_no_assertion_in_real_reports(even_texts, cleaner):
    """Nor in those that compare: only the sentence that does is exempt."""
    pairs = zip(even_texts, cleaner.clean(even_texts), strict=True)
    changed = [
        (text, targets)
        for text, cleaned in pairs
        if cleaned.text != text and (targets := contradictions(text, cleaned.text))
    ]
    assert not changed


@given(reports)
@settings(max_examples=300, deadline=None)
def test_cleaning_changes_no_assertion(text):
    assert not contradictions(text, cleaned_text(text))
