"""Normalization: what is read, and that every offset leads back to the source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.engines.text.normalization import normalize, words_of
from taxonomy.targets import load_taxonomy

KNOWN = words_of(load_taxonomy())


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("con\ufb01rmed", "confirmed"),
        ("pneu\u00admothorax", "pneumothorax"),
        ("pneu\u00ad\nmothorax", "pneumothorax"),
        ("atelec-\ntasis", "atelectasis"),
        ("left-\nsided", "left-sided"),
        ("3\u00a0mm", "3 mm"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("Clear – no effusion", "Clear – no effusion"),
    ],
)
def test_what_is_read(source, read):
    assert normalize(source, KNOWN).text == read


def test_a_word_leads_back_to_all_of_its_characters():
    source = "Con\ufb01rmed atelec-\r\n tasis of 3\u202fmm."
    read = normalize(source, KNOWN)
    for word, there in (("Confirmed", "Con\ufb01rmed"), ("atelectasis", "atelec-\r\n tasis")):
        start = read.text.index(word)
        assert source[slice(*read.span(start, start + len(word)))] == there
        assert read.target(source.index(there)) == start


@given(st.text(alphabet="ab \n\r-\u00ad\ufb03\u00a0", max_size=60))
def test_offsets_lead_into_the_source_in_order(source):
    read = normalize(source, KNOWN)
    starts = [read.source(i) for i in range(len(read.text) + 1)]
    assert starts == sorted(starts)
    assert all(0 <= i <= len(source) for i in starts[:-1])
    assert normalize(read.text, KNOWN).text == read.text or "-" in read.text
