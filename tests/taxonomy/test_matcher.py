"""Words, phrases and the longest match of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxonomy import Matcher, load_taxonomy
from taxonomy.words import form, phrase_key, tokenize

TAXONOMY = load_taxonomy()
MATCHER = Matcher(TAXONOMY)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Oedema", "edema"), ("oesophageal", "esophageal"), ("haemothorax", "hemothorax"),
        ("tumours", "tumor"), ("opacities", "opacity"), ("masses", "mass"), ("bronchi", "bronchus"),
        ("apices", "apex"), ("pneumothoraces", "pneumothorax"), ("atelectases", "atelectasis"),
        ("bullae", "bulla"), ("vertebrae", "vertebra"), ("thrombus", "thrombus"),
        ("atelectasis", "atelectasis"), ("EFFUSIONS", "effusion"), ("GGOs", "ggo"),
    ],
)  # fmt: skip
def test_normal_form(written, normal):
    assert form(written).word == normal


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ground-glass opacities", [("Ground-glass opacities", "pulmonary opacification")]),
        ("groundglass opacity", [("groundglass opacity", "pulmonary opacification")]),
        ("the arch of the aorta", [("arch of the aorta", "aortic arch")]),
        ("Air space disease", [("Air space disease", "pulmonary opacification")]),
        ("tip in SVC", [("SVC", "superior vena cava")]),
        ("GGOs", [("GGOs", "pulmonary opacification")]),
        ("left upper lobe", [("left upper lobe", "left lung upper lobe")]),
        ("after delivery", []),
        ("tb and pa in small letters are no abbreviations", []),
        ("small right ptx in rll", [("ptx", "pneumothorax"), ("rll", "right lung lower lobe")]),
        (
            "Gall bladder, oesophagus",
            [("Gall bladder", "gallbladder"), ("oesophagus", "esophagus")],
        ),
        ("LUNG NODULES", [("LUNG NODULES", "lung nodule")]),
    ],
)
def test_longest_match(text, found):
    assert [(text[m.start : m.end], m.target) for m in MATCHER.find(text)] == found


def test_every_phrase_finds_its_own_target():
    for target in TAXONOMY.targets.values():
        for phrase in (target.name, *target.synonyms):
            matches = MATCHER.find(phrase)
            assert [(m.start, m.end, m.target) for m in matches] == [(0, len(phrase), target.name)]


@given(st.text())
def test_tokens_cover_everything_but_space(text):
    tokens = tokenize(text)
    covered: set[int] = set()
    end = 0
    for start, stop in zip(tokens.starts, tokens.ends, strict=True):
        assert end <= start < stop
        end = stop
        covered.update(range(start, stop))
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)


@given(st.text())
def test_normal_form_is_stable(word):
    first = phrase_key(word)
    assert phrase_key(word) == first
    assert all(part == part.strip() for part in first)
