"""Words of a model, held against the sentence they must come from."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.engines.llm.protocols.alignment import Proposal, align, bare_words, occurrences


def found(sentence: str, *proposals: tuple[str, str]) -> list[tuple[str, str, str]]:
    aligned, _ = align(sentence, [Proposal(*p) for p in proposals])
    return [(sentence[a.start : a.end], proposals[a.proposal][1], a.match) for a in aligned]


def reasons(sentence: str, *words: str) -> list[str]:
    _, failures = align(sentence, [Proposal(w, "t") for w in words])
    return [failure.reason for _, failure in failures]


@pytest.mark.parametrize(
    ("sentence", "words", "match"),
    [
        ("No pleural effusion.", "pleural effusion", "exact"),
        ("No pleural effusion.", "Pleural Effusion", "normalized"),
        ("No pleural\n effusion.", "pleural effusion", "normalized"),
        ("No pleural effusion.", "effusion.", "normalized"),
        ("Enlarged cardiac silhouete.", "cardiac silhouette", "fuzzy"),
        ("Multiple pulmonary nodules.", "pulmonary nodule", "fuzzy"),
        ("Large nodulle.", "nodule", "fuzzy"),
    ],
)
def test_words_are_found_and_the_way_is_marked(sentence: str, words: str, match: str) -> None:
    assert [how for _, _, how in found(sentence, (words, "t"))] == [match]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("No pleural effusion.", "pneumothorax"),
        ("Nodule in the left lower lobe.", "right lower lobe"),
        ("Nodule in the right upper lobe.", "right lower lobe"),
        ("Fracture of rib 10 on the left.", "rib 11 on the left"),
        ("The cardiomediastinal silhouette is normal.", "silhouette of the heart"),
        ("The lung is clear.", "lun"),
        ("The effusion is small.", "effusion#2"),
        ("The effusion is small.", "effusion#0"),
        ("The effusion is small.", ""),
        ("The effusion is small.", "..."),
        ("nodular opacity, nodular density", "nodular opasity, nodular opacity too"),
    ],
)
def test_words_that_are_not_there_are_refused(sentence: str, words: str) -> None:
    assert reasons(sentence, words) == ["not_in_sentence"]


def test_the_longest_of_overlapping_phrases_wins_whatever_the_order() -> None:
    sentence = "Opacity in the left lower lobe."
    proposals = [("left lower", "a"), ("left lower lobe", "b"), ("lobe", "c")]
    for order in (proposals, proposals[::-1]):
        assert found(sentence, *order) == [("left lower lobe", "b", "exact")]
    assert reasons(sentence, "left lower lobe", "lobe") == ["overlaps_longer_phrase"]


def test_words_without_a_number_are_all_their_occurrences_that_are_free() -> None:
    sentence = "Right lung clear, left lung not: lung nodule."
    aligned, _ = align(sentence, [Proposal("lung", "lung"), Proposal("lung nodule", "lung nodule")])
    assert [(a.start, a.proposal) for a in aligned] == [(6, 0), (23, 0), (33, 1)]


def test_a_number_tells_occurrences_apart() -> None:
    sentence = "Effusion on the left, no effusion on the right."
    assert found(sentence, ("effusion#2", "second"), ("effusion#1", "first")) == [
        ("Effusion", "first", "normalized"),
        ("effusion", "second", "exact"),
    ]
    assert found(sentence, ("effusion", "rest"), ("effusion#2", "second")) == [
        ("Effusion", "rest", "normalized"),
        ("effusion", "second", "exact"),
    ]


WORDS = st.sampled_from("left right lung effusion nodule 10 11 (small) a-b no lobe".split())
SENTENCES = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)


@given(SENTENCES, st.lists(st.one_of(SENTENCES, st.text(max_size=12)), max_size=6))
def test_nothing_is_lost_invented_or_overlapping(sentence: str, words: list[str]) -> None:
    proposals = [Proposal(w, "t") for w in words]
    aligned, failures = align(sentence, proposals)
    assert {a.proposal for a in aligned} | {i for i, _ in failures} == set(range(len(words)))
    assert {a.proposal for a in aligned}.isdisjoint(i for i, _ in failures)
    assert all(one.end <= following.start for one, following in pairwise(aligned))
    for a in aligned:
        assert 0 <= a.start < a.end <= len(sentence)
        if a.match == "exact":
            assert sentence[a.start : a.end] == bare_words(words[a.proposal])


@given(SENTENCES, st.data())
def test_every_run_of_whole_words_is_found_where_it_stands(
    sentence: str, data: st.DataObject
) -> None:
    pieces = sentence.split()
    first = data.draw(st.integers(0, len(pieces) - 1))
    after = data.draw(st.integers(first + 1, len(pieces)))
    start = len(" ".join([*pieces[:first], ""])) if first else 0
    words = " ".join(pieces[first:after])
    found = occurrences(sentence, words)
    assert all(sentence[s:e].lower() == words.lower() for s, e in found)
    # the run itself, or one of the same words that begins before it ends
    assert any(s < start + len(words) and start < e for s, e in found)
