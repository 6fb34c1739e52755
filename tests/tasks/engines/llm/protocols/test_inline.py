"""The inline protocol: a text counts only if it is its source without the tags."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import Phrase
from storage.store import Store
from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.protocols.by_name import text_engines
from tasks.engines.llm.protocols.inline import Tag, fenced, read_tags, unfenced, with_tags
from tasks.engines.protocols import CleanedText, Failure
from taxonomy.targets import load_taxonomy
from tests.tasks.engines.llm.scripted import ScriptedEngine

TAXONOMY = load_taxonomy()
TEXT = "No nodule in the left lung."
TAGGED = "No [nodule](lung nodule) in the [left lung](left lung)."


@pytest.fixture
def caches(tmp_path: Path) -> ResponseCaches:
    return ResponseCaches(Store(str(tmp_path)))


def inline(caches: ResponseCaches, *script: str):
    return text_engines("inline", ScriptedEngine(*script), caches, TAXONOMY, "openi", "reject")


def test_the_three_steps(caches: ResponseCaches) -> None:
    kept = "No nodule in the [left lung](left lung)."
    engines = inline(caches, fenced(TEXT), fenced(TAGGED), fenced(kept))
    assert engines.cleaner.clean([f"{TEXT} Old film."]) == [CleanedText(TEXT, ("Old film.",))]
    (found,) = engines.extractor.extract([TEXT])
    assert [(p.start, p.end, p.target) for p in found] == [
        (3, 9, "lung nodule"),
        (17, 26, "left lung"),
    ]
    assert engines.filter.classify([TEXT], [found]) == [["absent", "present"]]


@pytest.mark.parametrize(
    "answer",
    [
        "No [mass](tumor) in the [left lung](left lung).",
        "No [nodule](lung nodule) in the left lung",
        "Here is the text: " + TAGGED,
        "",
    ],
)
def test_a_text_that_comes_back_other_than_it_was_is_refused(
    caches: ResponseCaches, answer: str
) -> None:
    (found,) = inline(caches, *[fenced(answer)] * 3).extractor.extract([TEXT])
    assert isinstance(found, Failure)
    assert found.reason == "answer_malformed"


def test_an_answer_without_its_marks_is_refused(caches: ResponseCaches) -> None:
    (found,) = inline(caches, *[TAGGED] * 3).extractor.extract([TEXT])
    assert found.reason == "answer_malformed"


def test_a_target_that_is_none_is_a_failure_beside_the_good_ones(caches: ResponseCaches) -> None:
    tagged = "No [nodule](knot) in the [left lung](left lung)."
    (found,) = inline(caches, fenced(tagged)).extractor.extract([TEXT])
    assert [getattr(item, "reason", "fine") for item in found] == ["unknown_target", "fine"]


@pytest.mark.parametrize("added", ["[No](lung) nodule", "No [nodule](tumor)"])
def test_the_filter_may_take_tags_away_and_nothing_else(caches: ResponseCaches, added: str) -> None:
    phrases = [Phrase(3, 9, "lung nodule")]
    engines = inline(caches, *[fenced(f"{added} in the left lung.")] * 3)
    (answers,) = engines.filter.classify([TEXT], [phrases])
    assert answers[0].reason == "answer_malformed"


def test_a_cleaned_text_that_adds_is_refused(caches: ResponseCaches) -> None:
    (cleaned,) = inline(caches, *[fenced("Nodule of 3 mm.")] * 3).cleaner.clean(["Nodule."])
    assert cleaned.reason == "rewrite_adds_number"


@given(st.text(alphabet="a <>/report\n-tx", max_size=60))
def test_no_text_can_close_its_own_fence(text: str) -> None:
    mark = fenced(text).split(">")[0] + ">"
    assert mark not in text
    assert mark.replace("<", "</") not in text
    assert unfenced(fenced(text), text) == text.strip()


@given(st.data())
def test_tags_survive_the_way_there_and_back(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(["left", "lung", "(a)", "nodule,"]), min_size=1))
    gaps = data.draw(st.lists(st.sampled_from([" ", "\n", "  "]), min_size=len(words)))
    text = "".join(w + g for w, g in zip(words, gaps, strict=False)).rstrip()
    chosen = data.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words)))
    phrases, start = [], 0
    for word, is_chosen in zip(words, chosen, strict=True):
        at = text.index(word, start)
        start = at + len(word)
        if is_chosen:
            phrases.append(Phrase(at, start, "lung"))
    expected = [Tag(p.start, p.end, "lung") for p in phrases]
    assert read_tags(with_tags(text, phrases), text) == expected
    assert read_tags(with_tags(text, phrases).replace("\n", " "), text) == expected
