"""Sequences: what is read, what is learned, and which position each token has."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.brackets import OPEN, insert, strip
from model.data.inputs import IGNORED, PhraseTarget, Sample, pack
from model.data.sequence import Turn, build_prompt, build_sequence, position_ids
from model.data.token_grid import TokenGrid
from tests.model.examples import REPORT, image, sample, target, tiny, tokenizer

GRID = TokenGrid((1, 16, 32), (1, 16, 32), (1, 8, 8), (1, 2, 2))
NEGATED = "Results:<p> liver</p>: yes,<np> lung nodule</np>: no."


def build(*turns, **changes):
    options = {"grid": GRID, "tokenizer": tokenizer(), "config": tiny(), "grounded": True}
    return build_sequence([Turn(*turn) for turn in turns], **{**options, **changes})


def tokens(ids):
    return tokenizer().convert_ids_to_tokens([i if i != IGNORED else 3 for i in ids.tolist()])


def words(text):
    return tokenizer().tokenize(text, add_special_tokens=False)


def test_the_sequence_reads_as_the_format_says():
    text = build(("What is seen?", "Nothing."), ("Which modality?", REPORT))
    image_places = ["<unk>"] * (GRID.num_tokens + 2)
    assert tokens(text.input_ids) == [
        *["<s>", *image_places, "<grd>"],
        *["<usr>", *words(" What is seen?"), "<sys>", *words("Nothing.")],
        *["<usr>", *words(" Which modality?"), "<sys>", *words(REPORT)],
    ]
    assert text.token_types.nonzero().squeeze(1).tolist() == list(range(1, 5))
    assert text.num_phrases == 2


def test_answers_and_their_ends_are_learned():
    text = build(("What is seen?", "Nothing."), ("Which modality?", "X-ray."))
    learned = text.labels != IGNORED
    ends = ["</s>"]
    assert tokens(text.labels[learned]) == [*words("Nothing."), *ends, *words("X-ray."), *ends]
    # A position is learned when it is the last of a query or within an answer.
    first = tokens(text.input_ids).index("<sys>")
    assert not learned[:first].any()
    assert learned[first : first + 1 + len(words("Nothing."))].all()
    assert not learned[first + 1 + len(words("Nothing."))]


def test_known_absent_phrases_are_read_but_not_opened():
    text = build(("What is seen?", NEGATED))
    assert "<np>" not in tokens(text.input_ids)
    assert text.num_phrases == 2
    opened = [i for i, token in enumerate(tokens(text.input_ids)) if token == OPEN]
    first, second = (tokens(text.labels)[i - 1] for i in opened)
    assert (first, second) == ("<p>", words(" lung")[0])
    assert tokens(text.labels).count("</p>") == 2
    assert not {"<np>", "</np>"} & set(tokens(text.labels))


def test_positions_before_a_phrase_weigh_more():
    text = build(("What is seen?", NEGATED), bop_weight=7.0)
    before = [i - 1 for i, token in enumerate(tokens(text.input_ids)) if token == OPEN]
    assert (text.weights == 7).nonzero().squeeze(1).tolist() == before
    assert (text.weights == 1).sum() == len(text.weights) - 2


def test_unless_told_otherwise_length_and_weights_are_the_paper_s():
    text = build(("What is seen?", REPORT * 100))
    assert len(text.input_ids) == 1024
    assert set(text.weights.tolist()) == {1, 5}


def test_without_grounding_there_are_no_brackets():
    text = build(("What is seen?", NEGATED), grounded=False)
    plain = build(("What is seen?", strip(NEGATED)), grounded=False)
    assert torch.equal(text.input_ids, plain.input_ids)
    assert "<ngrd>" in tokens(text.input_ids)
    assert text.num_phrases == 0


def test_nothing_in_a_query_is_special():
    text = build(("<p> </p> </s> <usr>?", "Nothing."))
    assert text.num_phrases == 0
    assert not {"<p>", "</p>", "</s>"} & set(tokens(text.input_ids))
    assert tokens(text.input_ids).count("<usr>") == 1


def test_a_prompt_is_the_sequence_up_to_its_answer():
    history = [Turn("What is seen?", REPORT)]
    prompt = build_prompt(
        history, "Why?", grid=GRID, tokenizer=tokenizer(), config=tiny(), grounded=True
    )
    text = build(("What is seen?", REPORT), ("Why?", NEGATED))
    length = len(prompt.input_ids)
    assert tokens(prompt.input_ids)[-1] == "<sys>"
    assert torch.equal(prompt.input_ids, text.input_ids[:length])
    assert torch.equal(prompt.position_ids, text.position_ids[:length])
    assert (prompt.labels == IGNORED).all()


@pytest.mark.parametrize("length", range(20, 45))
def test_targets_stay_with_their_phrases_when_the_end_is_cut_off(length):
    picture = image((1, 40, 60))
    whole = sample(picture, REPORT)
    cut = sample(picture, REPORT, max_length=length)
    assert len(cut.text.input_ids) == min(length, len(whole.text.input_ids))
    assert torch.equal(cut.text.labels, whole.text.labels[:length])
    assert len(cut.targets) == cut.text.num_phrases
    assert cut.text.num_phrases + cut.text.num_cut == 2
    assert pack([cut, whole]).targets == (cut.targets, whole.targets)


def test_cutting_keeps_the_first_targets():
    whole = build(("What is seen?", REPORT))
    last = int((whole.input_ids == tiny().eop_token_id).nonzero()[-1])
    cut = build(("What is seen?", REPORT), max_length=last)
    targets = [target(GRID), PhraseTarget()]
    assert (cut.num_phrases, cut.num_cut) == (1, 1)
    assert Sample.of(image((1, 16, 32)), cut, targets).targets == tuple(targets[:1])
    with pytest.raises(ValueError, match="1 targets for the 2 phrases"):
        Sample.of(image((1, 16, 32)), cut, targets[:1])


def test_an_image_that_leaves_no_room_is_said():
    with pytest.raises(
        ValueError, match="2 tokens, which leaves no room for text within max_length 6"
    ):
        build(("What is seen?", REPORT), max_length=6)


def test_positions_are_those_of_the_paper():
    text = build(("What is seen?", REPORT))
    start = tokens(text.input_ids).index("<grd>")
    assert text.position_ids[:start].tolist() == [0, 1, 2, 2, 3]
    assert text.position_ids[start : start + 3].tolist() == [4, 5, 6]


@st.composite
def bracketed(draw):
    text = "x" + draw(st.text("ab c."))
    cuts = sorted(draw(st.sets(st.integers(1, len(text)), max_size=6)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return insert(text, [pair for pair in pairs if text[pair[0]] != " "])


@settings(max_examples=40, deadline=None)
@given(bracketed())
def test_brackets_take_no_position(answer):
    text = build(("Why?", answer))
    opening = text.input_ids == tiny().bop_token_id
    closing = text.input_ids == tiny().eop_token_id
    of_words = text.position_ids[~(opening | closing)].tolist()
    assert of_words == [0, 1, 2, 2, *range(3, len(of_words) - 1)]
    steps = text.position_ids.diff()
    assert not steps[opening[:-1]].any()
    assert not steps[closing[1:]].any()


BRACKETS_AND_WORDS = st.lists(st.sampled_from([8, 9, 20, 21, 22]), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(BRACKETS_AND_WORDS, st.integers(0, 5))
def test_an_answer_in_the_making_is_numbered_as_the_whole(answer, padding):
    head = build(("Why?", ""))
    ids = torch.cat([head.input_ids, torch.tensor(answer)])
    types = torch.cat([head.token_types, torch.zeros(len(answer), dtype=torch.long)])
    whole = position_ids(ids, types, tiny())
    for length in range(len(head.input_ids), len(ids)):
        assert torch.equal(position_ids(ids[:length], types[:length], tiny()), whole[:length])
    blank = torch.zeros(padding, dtype=torch.long)
    padded = position_ids(
        torch.cat([blank, ids]).unsqueeze(0),
        torch.cat([blank, types]).unsqueeze(0),
        tiny(),
        torch.cat([blank, torch.ones_like(ids)]).unsqueeze(0),
    )
    assert torch.equal(padded[0, padding:], whole)
    assert not padded[0, :padding].any()
