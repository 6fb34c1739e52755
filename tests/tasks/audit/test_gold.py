"""The gold sentences: what is checked of the file, how readings are scored, and the real ones."""

from collections import Counter

import pytest
import yaml

from tasks.audit.gold import GoldError, load_gold
from tasks.audit.gold_scores import Found, Reading, read_sentences, score_sentences
from tasks.engines.text.assertion import ContextClassifier
from tasks.engines.text.cleaning import RulesCleaner
from tasks.engines.text.lexicon import LexiconExtractor
from taxonomy.targets import load_taxonomy

TAXONOMY = load_taxonomy()
NEW = {"anatomy": ["hilum"], "abnormality": ["nasal cannula"]}


def sentence(text, *phrases, half="dev", name="a-01"):
    return {"id": name, "kind": "a", "half": half, "text": text, "phrases": list(phrases)}


def gold_of(tmp_path, *sentences):
    file = tmp_path / "gold.yaml"
    file.write_text(yaml.safe_dump({"new_targets": NEW, "sentences": list(sentences)}))
    return load_gold(TAXONOMY, file)


def phrase(words, target, assertion="present", **more):
    return {"words": words, "target": target, "assertion": assertion} | more


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([sentence("No edema.", phrase("effusion", "pleural effusion"))], "no occurrence 1"),
        ([sentence("No edema.", phrase("edema", "pulmonary edema", occurrence=2))], "occurrence 2"),
        ([sentence("No edema.", phrase("edema", "wet lung"))], "wet lung (a-01)"),
        ([sentence("No edema.", phrase("edema", "pulmonary edema", "maybe"))], "assertion"),
        ([sentence("No edema.", {"words": "edema"})], "has no target"),
        ([sentence("Clear."), sentence("Normal.")], "the same id: a-01"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, sentences, message):
    with pytest.raises(GoldError, match=message.replace("(", r"\(").replace(")", r"\)")):
        gold_of(tmp_path, *sentences)


def test_a_later_occurrence_has_its_own_span(tmp_path):
    gold = gold_of(
        tmp_path, sentence("No edema. Edema, edema.", phrase("edema", "pulmonary edema"),
                           phrase("edema", "pulmonary edema", occurrence=2))
    )  # fmt: skip
    [one] = gold.sentences
    assert [one.span(p) for p in one.phrases] == [(3, 8), (17, 22)]


def scored(gold, *readings, positive=("present",)):
    by_id = dict(zip([s.id for s in gold.sentences], readings, strict=True))
    return score_sentences(gold, by_id, TAXONOMY, positive)


def found(text, words, target, assertion="present", side=None):
    start = text.index(words)
    return Found((start, start + len(words)), target, assertion, side)


def test_spans_targets_and_assertions_are_scored_apart(tmp_path):
    text = "No edema but small left effusion over the heart."
    gold = gold_of(
        tmp_path,
        sentence(
            text,
            phrase("edema", "pulmonary edema", "absent"),
            phrase("effusion", "pleural effusion", laterality="left"),
            phrase("heart", "heart"),
        ),
    )
    reading = Reading(
        (
            found(text, "edema", "pulmonary edema"),
            found(text, "left effusion", "pleural effusion", side="right"),
            found(text, "heart", "cardiomegaly"),
        ),
        frozenset({"pleural effusion", "pulmonary edema", "heart"}),
    )
    result = scored(gold, reading)
    dev = result.halves["dev"]
    assert dev.spans.f1 == 1
    assert dev.exact.agreed == 2
    assert (dev.targets.support, dev.targets.predicted, dev.targets.agreed) == (3, 3, 2)
    assert dev.assertions["absent"].recall == 0
    assert dev.assertions["present"].precision == 0.5
    assert dev.assertion_f1 == pytest.approx((2 / 3 + 0) / 2)
    assert (dev.sides.support, dev.sides.agreed) == (1, 0)
    assert (dev.presence.support, dev.presence.predicted, dev.presence.agreed) == (1, 2, 1)
    assert Counter(miss.difference for miss in result.misses) == {
        "assertion": 1, "side": 1, "missed": 1, "extra": 1,
    }  # fmt: skip


def test_a_range_names_several_targets_in_one_phrase(tmp_path):
    text = "Left 4th-5th ribs."
    ribs = [phrase(text[:-1], f"left rib {n}") for n in (4, 5)]
    gold = gold_of(tmp_path, sentence(text, *ribs))
    dev = scored(gold, Reading((found(text, "Left 4th-5th ribs", "left rib 4"),))).halves["dev"]
    assert dev.spans.f1 == 1
    assert (dev.targets.support, dev.targets.agreed) == (2, 1)


@pytest.mark.parametrize(
    ("expected", "said", "right"),
    [
        ("probable", "probable", True),
        ("probable", "possible", False),
        ("present", "probable", False),
        ("absent", "possible", False),
        ("possible", "possible", True),
    ],
)
def test_grades_of_hedges_are_told_apart(tmp_path, expected, said, right):
    text = "Edema?"
    gold = gold_of(tmp_path, sentence(text, phrase("Edema", "pulmonary edema", expected)))
    dev = scored(gold, Reading((found(text, "Edema", "pulmonary edema", said),))).halves["dev"]
    assert dev.assertion_f1 == right


def test_unscored_words_count_for_nothing(tmp_path):
    text = "Haze at the left base."
    gold = gold_of(
        tmp_path,
        sentence(text, phrase("Haze", "pneumonia", "unscored"),
                 {"words": "left base", "assertion": "unscored"}),
    )  # fmt: skip
    reading = Reading(
        (found(text, "Haze", "pneumonia"), found(text, "base", "atelectasis")),
        frozenset({"pneumonia", "atelectasis"}),
    )
    result = scored(gold, reading)
    assert result.halves["dev"].targets.predicted == 0
    assert result.halves["dev"].presence.predicted == 0
    assert result.misses == []


def test_a_target_beyond_the_taxonomy_is_left_out_of_the_known(tmp_path):
    gold = gold_of(tmp_path, sentence("Cannula.", phrase("Cannula", "nasal cannula")))
    result = scored(gold, Reading())
    assert result.halves["dev"].targets.support == 1
    assert result.known["dev"].targets.support == 0


def test_hedges_are_positive_where_the_policy_keeps_them(tmp_path):
    gold = gold_of(tmp_path, sentence("Edema?", phrase("Edema", "pulmonary edema", "probable")))
    reading = Reading(positives=frozenset({"pulmonary edema"}))
    assert scored(gold, reading).halves["dev"].presence.support == 0
    assert scored(gold, reading, positive=("present", "probable")).halves["dev"].presence.f1 == 1


@pytest.fixture(scope="module")
def result():
    gold = load_gold(TAXONOMY)
    extractor, classifier = LexiconExtractor(TAXONOMY), ContextClassifier(TAXONOMY)
    readings = read_sentences(
        gold.sentences, RulesCleaner(TAXONOMY), extractor, classifier, TAXONOMY, {"present"}
    )
    return score_sentences(gold, readings, TAXONOMY, {"present"})


def test_the_packaged_gold_is_large_and_halved_within_each_kind():
    sentences = load_gold(TAXONOMY).sentences
    assert len(sentences) >= 450
    assert len({s.text for s in sentences}) == len(sentences)
    halves = Counter((s.kind, s.half) for s in sentences)
    kinds = {s.kind for s in sentences}
    halved = {kind for kind in kinds if halves[kind, "held-out"]}
    assert len(halved) >= 25
    assert all(0 <= halves[kind, "dev"] - halves[kind, "held-out"] <= 1 for kind in halved)


def test_the_held_out_half_is_scored_and_its_sentences_not_shown(result):
    held_out = {s.id for s in load_gold(TAXONOMY).sentences if s.half == "held-out"}
    assert result.halves["held-out"].texts == len(held_out)
    assert not {miss.sentence for miss in result.misses} & held_out
    assert not any(name in str(result.as_json()) for name in held_out)


def test_the_embedded_steps_keep_what_they_reached(result):
    known = result.known["dev"]
    assert known.targets.f1 >= 0.96
    assert known.assertion_f1 >= 0.95
    assert known.negation.f1 >= 0.97
