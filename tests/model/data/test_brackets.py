"""Phrases in brackets: in, out, and what a model may write that is neither."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.brackets import insert, parse, strip

TEXT = st.text().filter(lambda text: strip(text) == text and "<" not in text)


@st.composite
def texts_with_phrases(draw):
    text = draw(TEXT)
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    return text, [(start, end) for start, end in pairs if text[start] != " "]


@given(texts_with_phrases())
def test_what_is_put_in_comes_out(case):
    text, spans = case
    assert parse(insert(text, spans)) == (text, spans)


BRACKETS = st.sampled_from(["<p>", "</p>", "<np>", "</np>"])


@given(st.lists(st.one_of(BRACKETS, TEXT)))
def test_any_brackets_leave_the_text(pieces):
    # Behind a letter: at the very start, a space after a bracket is the one that `insert` adds.
    plain = [piece for piece in pieces if not piece.endswith("p>")]
    assert parse("".join(["x", *pieces]))[0] == "".join(["x", *plain])


@pytest.mark.parametrize(
    ("text", "spans", "written"),
    [
        ("The heart is large", [(4, 9)], "The<p> heart</p> is large"),
        ("Heart is large", [(0, 5)], "<p> Heart</p> is large"),
        (" Heart", [(1, 6)], "<p>  Heart</p>"),
        ("(heart)", [(1, 6)], "(<p>heart</p>)"),
        ("left lung and heart", [(0, 9), (14, 19)], "<p> left lung</p> and<p> heart</p>"),
        ("lungsheart", [(0, 5), (5, 10)], "<p> lungs</p><p>heart</p>"),
        ("a 𝔥eart é", [(2, 7)], "a<p> 𝔥eart</p> é"),
    ],
)
def test_spaces_move_inside(text, spans, written):
    assert insert(text, spans) == written


@pytest.mark.parametrize(
    ("written", "text", "spans"),
    [
        ("the<p> left<p> lung</p> is</p>", "the left lung is", [(9, 13)]),
        ("the<p> lung is", "the lung is", []),
        ("the lung</p> is", "the lung is", []),
        ("<p> lung</p></p> is<p> a", "lung is a", [(0, 4)]),
        ("the<p></p> lung", "the lung", [(3, 3)]),
        ("the<p> </p>lung", "the lung", [(4, 4)]),
        ("the<p> left</np> lung</p>", "the left lung", []),
        ("<p>heart</p>", "heart", [(0, 5)]),
        ("no<np> nodule</np>", "no nodule", []),
    ],
)
def test_what_is_malformed_is_ignored(written, text, spans):
    assert parse(written) == (text, spans)


@pytest.mark.parametrize(
    ("text", "spans", "why"),
    [
        ("the <p> heart", [(8, 13)], "bracket <p> of its own at 4"),
        ("heart", [(2, 2)], "phrase at 2 to 2 is empty"),
        ("heart", [(2, 6)], "not within the 5 characters"),
        ("left heart", [(0, 6), (5, 10)], "out of order"),
    ],
)
def test_what_cannot_be_written_is_said(text, spans, why):
    with pytest.raises(ValueError, match=why):
        insert(text, spans)
