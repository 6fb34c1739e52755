"""Extraction and assertion on text as it comes: ligatures, soft hyphens, wrapped words."""

import pytest

from tasks.engines.text.assertion import ContextClassifier
from tasks.engines.text.lexicon import LexiconExtractor
from taxonomy.targets import load_taxonomy

TAXONOMY = load_taxonomy()


@pytest.mark.parametrize(
    ("text", "words", "target", "assertion"),
    [
        ("No pneu\u00admothorax.", "pneu\u00admothorax", "pneumothorax", "absent"),
        ("Left e\ufb00usion.", "e\ufb00usion", "left pleural effusion", "present"),
        ("No con\ufb01rmed atelec-\ntasis.", "atelec-\ntasis", "atelectasis", "absent"),
        (
            "Edema.\r\nNo\u00a0atelec\u00ad\r\ntasis.",
            "atelec\u00ad\r\ntasis",
            "atelectasis",
            "absent",
        ),
        ("\ufeffCardiomegaly\u200b.", "Cardiomegaly", "cardiomegaly", "present"),
    ],
)
def test_offsets_are_those_of_the_text_given(text, words, target, assertion):
    [phrases] = LexiconExtractor(TAXONOMY).extract([text])
    [answers] = ContextClassifier(TAXONOMY).classify([text], [phrases])
    found = {text[p.start : p.end]: (p.target, a) for p, a in zip(phrases, answers, strict=True)}
    assert found[words][1] == assertion
    assert target.endswith(found[words][0])
