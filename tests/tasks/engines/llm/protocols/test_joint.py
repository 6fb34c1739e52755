"""The joint protocol: one request for three steps, and what happens when its cache is lost."""

import json
from pathlib import Path

import jsonschema
import pytest

from storage.records import Modifiers, Phrase
from storage.store import Store
from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.protocols.by_name import text_engines
from tasks.engines.protocols import CleanedText, Failure
from tasks.engines.text.lexicon import LexiconExtractor
from taxonomy.targets import load_taxonomy
from tests.tasks.engines.llm.scripted import ScriptedEngine, dry_run_engine, one_target_a_phrase

TAXONOMY = load_taxonomy()
TEXT = "Old film. The left effusion has decreased. No nodule."
ANSWER = json.dumps(
    {
        "1": "drop",
        "2": {
            "rewrite": "There is a left effusion.",
            "phrases": [["effusion", "pleural effusion", "present"]],
        },
        "3": [["nodule", "lung nodule", "absent"], ["mass", "lung mass", "possible"]],
    }
)


@pytest.fixture
def caches(tmp_path: Path) -> ResponseCaches:
    return ResponseCaches(Store(str(tmp_path)))


def joint(caches: ResponseCaches, *script: str):
    return text_engines("joint", ScriptedEngine(*script), caches, TAXONOMY, "openi", "reject")


def test_one_request_does_all_three_steps(caches: ResponseCaches) -> None:
    engines = joint(caches, ANSWER)
    (cleaned,) = engines.cleaner.clean([TEXT])
    assert cleaned.text == "There is a left effusion. No nodule."
    (found,) = engines.extractor.extract([cleaned.text])
    phrases = [item for item in found if isinstance(item, Phrase)]
    assert phrases == [
        Phrase(16, 24, "pleural effusion", Modifiers("left")),
        Phrase(29, 35, "lung nodule", Modifiers()),
    ]
    assert [f.reason for f in found if isinstance(f, Failure)] == ["not_in_sentence"]
    assert engines.filter.classify([cleaned.text], [phrases]) == [["present", "absent"]]


def test_the_steps_find_their_answers_in_another_process(tmp_path: Path) -> None:
    (cleaned,) = joint(ResponseCaches(Store(str(tmp_path))), ANSWER).cleaner.clean([TEXT])
    later = joint(ResponseCaches(Store(str(tmp_path))))  # has no answer to give
    (found,) = later.extractor.extract([cleaned.text])
    assert later.filter.classify([cleaned.text], [found[:2]]) == [["present", "absent"]]


def test_if_the_cache_is_lost_the_steps_fall_back_to_spans(caches: ResponseCaches) -> None:
    engines = joint(caches, '{"1":[["nodule","lung nodule"]]}', '{"1":"absent"}')
    (found,) = engines.extractor.extract(["No nodule."])
    assert found == [Phrase(3, 9, "lung nodule")]
    assert engines.filter.classify(["No nodule."], [found]) == [["absent"]]


def test_phrases_of_another_extractor_are_asked_about(caches: ResponseCaches) -> None:
    answer = '{"1":[["nodule","lung nodule","absent"]]}'
    engines = joint(caches, answer, '{"1":"possible"}')
    engines.cleaner.clean(["No nodule or cyst."])
    phrases = [Phrase(3, 9, "lung nodule"), Phrase(13, 17, "pulmonary cyst")]
    assert engines.filter.classify(["No nodule or cyst."], [phrases]) == [["absent", "possible"]]


def test_a_dropped_sentence_cannot_have_phrases(caches: ResponseCaches) -> None:
    wrong = '{"1":{"rewrite":"","phrases":[["film","lung","present"]]}}'
    engines = joint(caches, wrong, '{"1":"drop"}')
    assert engines.cleaner.clean(["Old film."]) == [CleanedText("", ("Old film.",))]


@pytest.mark.parametrize(
    "wrong",
    [
        '{"2":{}}',
        '{"1":["nodule"]}',
        '{"1":[["nodule","lung nodule","maybe"]]}',
        '{"1":[["nodule","=","absent"],["nodule","=","present"]]}',
        '{"1":{"phrases":[]}}',
        '{"1":{"drop":true}}',
        '{"1":"drop","1":[]}',
        '{"1":{"rewrite":"Clear.","rewrite":"No nodule."}}',
    ],
)
def test_answers_off_the_schema_end_as_a_failure(caches: ResponseCaches, wrong: str) -> None:
    (cleaned,) = joint(caches, *[wrong] * 3).cleaner.clean(["No nodule."])
    assert cleaned.reason == "answer_malformed"


def test_a_replay_gives_what_the_embedded_engines_give(
    caches: ResponseCaches, even_texts: list[str]
) -> None:
    texts = even_texts[::12]
    chat = dry_run_engine()
    engines = text_engines("joint", chat, caches, TAXONOMY, "openi")
    kept = [c.text for c in engines.cleaner.clean(texts) if isinstance(c, CleanedText) and c.text]
    asked = len(chat.asked)
    found = engines.extractor.extract(kept)
    wanted = [one_target_a_phrase(own) for own in LexiconExtractor(TAXONOMY).extract(kept)]
    assert sum(f != w for f, w in zip(found, wanted, strict=True)) <= 1
    phrases = [
        [] if isinstance(own, Failure) else [p for p in own if isinstance(p, Phrase)]
        for own in found
    ]
    plain = text_engines("spans", dry_run_engine(), caches, TAXONOMY, "openi")
    assert engines.filter.classify(kept, phrases) == plain.filter.classify(kept, phrases)
    assert len(chat.asked) == asked  # extraction and filtering asked nothing
    assert all(a.tokens_out < r.max_tokens for r, a in zip(chat.asked, chat.answers, strict=True))
    for request, answer in zip(chat.asked[::10], chat.answers[::10], strict=True):
        jsonschema.validate(json.loads(answer.text), request.schema)
