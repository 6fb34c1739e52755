"""Answers are read from tokens: text exact, phrases in place, false brackets ignored."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.brackets import insert
from model.data.phrases import phrase_ends
from model.inference.answers import finished, read_answer
from tests.model.examples import tiny, tokenizer

WORDS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), exclude_characters="<>"),
    min_size=1,
    max_size=6,
)


def encoded(text: str) -> torch.Tensor:
    return torch.tensor(tokenizer()(text, add_special_tokens=False).input_ids)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, st.booleans()), min_size=1, max_size=8))
def test_text_and_phrases_come_back_from_tokens(words: list[tuple[str, bool]]) -> None:
    text, spans = "", []
    for word, is_phrase in words:
        text += " " if text else ""
        if is_phrase:
            spans.append((len(text), len(text) + len(word)))
        text += word
    answer = read_answer(encoded(insert(text, spans)), tokenizer(), tiny())
    assert answer.text == text
    assert [answer.text[slice(*span)].strip() for span in answer.spans] == [
        text[slice(*span)] for span in spans
    ]


def test_malformed_brackets_are_ignored_and_their_text_is_kept() -> None:
    answer = read_answer(
        encoded("A</p> big<p> outer<p> inner</p> one</p> and<p> open"), tokenizer(), tiny()
    )
    assert answer.text == "A big outer inner one and open"
    assert [answer.text[slice(*span)] for span in answer.spans] == [" inner"]


def test_spelled_out_brackets_are_no_brackets() -> None:
    tokens = torch.tensor(
        tokenizer()("x <p> y</p> z", add_special_tokens=False, split_special_tokens=True).input_ids
    )
    tokens = torch.cat([tokens, encoded("<p> heart</p>")])
    answer = read_answer(tokens, tokenizer(), tiny())
    assert answer.text == "x <p> y</p> z heart"
    assert [answer.text[slice(*span)] for span in answer.spans] == [" heart"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 319), max_size=40))
def test_any_tokens_give_a_text_and_a_span_for_each_phrase(ids: list[int]) -> None:
    tokens = torch.tensor(ids, dtype=torch.int64)
    answer = read_answer(tokens, tokenizer(), tiny())
    assert len(answer.spans) == len(phrase_ends(tokens, tiny()))
    assert all(0 <= start <= end <= len(answer.text) for start, end in answer.spans)


def test_an_answer_ends_before_its_end_token() -> None:
    assert finished(torch.tensor([7, 8, 2, 0, 0]), tiny()).tolist() == [7, 8]
    assert finished(torch.tensor([2, 0]), tiny()).tolist() == []
    assert finished(torch.tensor([7, 8]), tiny()).tolist() == [7, 8]
    assert finished(torch.tensor([7, 3, 2]), tiny(eos_token_id=[2, 3])).tolist() == [7]
