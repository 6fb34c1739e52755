"""The lexicon extractor on language of several genres, and on any text at all."""

import cProfile
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.records import Phrase
from tasks.engines.text.lexicon import LexiconExtractor
from tasks.engines.text.lexicon.vocabulary import load_vocabulary
from taxonomy import load_taxonomy
from taxonomy.targets import PACKAGED

GROUPS = yaml.safe_load(Path(__file__).with_name("lexicon_cases.yaml").read_text(encoding="utf-8"))
CASES = [case for cases in GROUPS.values() for case in cases]
TAXONOMY = load_taxonomy()
EXTRACTOR = LexiconExtractor(TAXONOMY)
ZONES = {*load_vocabulary().zones, *load_vocabulary().structure_zones.values()}

WORDS = st.sampled_from(sorted({word for case in CASES for word in case["text"].split()}))
TEXTS = st.one_of(st.text(), st.lists(WORDS, max_size=30).map(" ".join))


def written(text: str, phrase: Phrase) -> str:
    modifiers = phrase.modifiers
    where = [modifiers.laterality, *modifiers.zones, modifiers.count and f"x{modifiers.count}"]
    said = " ".join(word for word in where if word)
    guessed = " (fuzzy)" if phrase.match == "fuzzy" else ""
    words = f"{text[phrase.start : phrase.end]} => {phrase.target}"
    return words + (f" [{said}]" if said else "") + guessed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"])
def test_finds_what_a_reader_finds(case):
    text = case["text"]
    assert [written(text, phrase) for phrase in EXTRACTOR.extract([text])[0]] == case["finds"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"])
def test_capitals_change_no_target(case):
    """Some hospitals write whole reports in capitals."""
    phrases = EXTRACTOR.extract([case["text"].upper()])[0]
    found = [p.target for p in EXTRACTOR.extract([case["text"]])[0]]
    assert [p.target for p in phrases] == found


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_phrases_are_in_order_apart_and_inside_the_text(text):
    phrases = EXTRACTOR.extract([text])[0]
    span = (0, 0)
    for phrase in phrases:
        assert span == (phrase.start, phrase.end) or span[1] <= phrase.start
        assert phrase.start < phrase.end <= len(text)
        span = (phrase.start, phrase.end)
        words = text[phrase.start : phrase.end]
        assert words == words.strip()
        assert phrase.target in TAXONOMY
        assert set(phrase.modifiers.zones) <= ZONES
        assert phrase.modifiers.count is None or phrase.modifiers.count >= 1


@given(st.lists(st.sampled_from([case["text"] for case in CASES]), min_size=1, max_size=4))
@settings(deadline=None)
def test_sentences_do_not_touch_each_other(sentences):
    text = "\n".join(sentences)
    together = [written(text, phrase) for phrase in EXTRACTOR.extract([text])[0]]
    alone = [
        written(sentence, phrase)
        for sentence, phrases in zip(sentences, EXTRACTOR.extract(sentences), strict=True)
        for phrase in phrases
    ]
    assert together == alone


def test_every_target_with_words_of_its_own_is_found_by_its_name():
    """A name is a phrase of its target, but for the general ones that are only parents."""
    grouping = {"aortic abnormality"}
    missing = [
        name
        for name in TAXONOMY.targets
        if name not in grouping
        and name not in {p.target for p in EXTRACTOR.extract([f"There is {name}."])[0]}
    ]
    assert missing == []


def test_fingerprint_follows_the_words_but_not_the_groundings(tmp_path):
    source = PACKAGED.read_text(encoding="utf-8")
    path = tmp_path / "targets.yaml"
    path.write_text(source.replace("windpipe", "wind pipe"), encoding="utf-8")
    assert LexiconExtractor(load_taxonomy(path)).fingerprint != EXTRACTOR.fingerprint
    path.write_text(source.replace("vindr: Emphysema", "vindr: Other"), encoding="utf-8")
    assert LexiconExtractor(load_taxonomy(path)).fingerprint == EXTRACTOR.fingerprint


def test_answers_and_fingerprint_do_not_depend_on_the_process():
    """Sets are iterated in another order under another hash seed."""
    code = """
import json, sys
from tasks.engines.text.lexicon import LexiconExtractor
from taxonomy import load_taxonomy
extractor = LexiconExtractor(load_taxonomy())
found = extractor.extract(json.load(sys.stdin))
print(extractor.fingerprint, found)
"""
    texts = json.dumps([case["text"] for case in CASES])
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], input=texts, text=True, check=True,
            capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(answers) == 1


@pytest.mark.parametrize(
    "piece",
    ["small nodule in the left lower lobe, ", "pleural effusion, ", "4th and ", "lung ", "T3 ",
     "heart and ", "enlarged ", "left ", "and , ", "nodule; ", "atrium ", "pneumothxrax "],
)  # fmt: skip
def test_the_work_grows_with_the_length_of_a_sentence(piece):
    """Counted in calls of Python functions, which no other work on the machine changes."""
    short, long = (_calls(piece * n + "of the ribs") for n in (200, 800))
    assert long < 5 * short


def _calls(text: str) -> int:
    extractor = LexiconExtractor(TAXONOMY)
    profile = cProfile.Profile()
    profile.runcall(extractor.extract, [text])
    return sum(entry.callcount for entry in profile.getstats())
