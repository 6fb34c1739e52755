"""A model that answers in a way that no step can use ends the run; a poor one does not."""

import json
from pathlib import Path

import pytest

from storage.store import Store
from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.chat.engine import EngineError
from tasks.engines.llm.protocols.by_name import text_engines
from tasks.engines.llm.protocols.trial import FEWEST_UNITS
from tasks.engines.llm.settings import OnFailure, ProtocolName
from tasks.engines.metering import metered
from tasks.engines.protocols import CleanedText
from taxonomy.targets import load_taxonomy
from tests.tasks.engines.llm.scripted import ScriptedEngine

PROSE = "I am sorry, I cannot help with that."
NODULES = [f"There is a {n} mm nodule in the left lung." for n in range(FEWEST_UNITS)]


@pytest.fixture
def caches(tmp_path: Path) -> ResponseCaches:
    return ResponseCaches(Store(str(tmp_path)))


def cleaner(caches: ResponseCaches, protocol: ProtocolName, on_failure: OnFailure, *script: str):
    chat = ScriptedEngine(*script)
    return text_engines(protocol, chat, caches, load_taxonomy(), "openi", on_failure).cleaner


@pytest.mark.parametrize("on_failure", ["rules", "reject"])
@pytest.mark.parametrize("protocol", ["spans", "joint", "inline"])
def test_prose_for_every_sentence_ends_the_run_with_the_models_words(
    caches: ResponseCaches, protocol: ProtocolName, on_failure: OnFailure
) -> None:
    texts = [f"{nodule} It is unchanged since the prior." for nodule in NODULES]
    with pytest.raises(EngineError, match=rf"no answer.*answer_malformed.*{PROSE}") as told:
        cleaner(caches, protocol, on_failure, *[PROSE] * 200).clean(texts)
    assert "thinking_tokens" in str(told.value)
    assert "nodule" not in str(told.value)


def test_shards_that_are_too_small_to_tell_are_judged_together(caches: ResponseCaches) -> None:
    one = cleaner(caches, "spans", "rules", *[PROSE] * 200)
    half = FEWEST_UNITS // 2
    (cleaned,) = one.clean([" ".join(NODULES[:half])])
    assert isinstance(cleaned, CleanedText)
    assert cleaned.by_rules == tuple(NODULES[:half])
    with pytest.raises(EngineError, match=f"{FEWEST_UNITS} of the first {FEWEST_UNITS} "):
        one.clean([" ".join(NODULES[half:])])


def test_one_usable_answer_of_sixteen_lets_a_run_go_on_and_is_counted(
    caches: ResponseCaches,
) -> None:
    bad = {key: {"rewrite": "x"} for key in map(str, range(1, FEWEST_UNITS))}
    with metered() as usage:
        cleaner(caches, "spans", "rules", json.dumps(bad), *[PROSE] * 200).clean(
            [" ".join(NODULES)]
        )
    assert usage["units_by_rules"] == FEWEST_UNITS - 1


def test_sentences_that_a_good_model_failed_at_before_are_no_sign_against_it(
    caches: ResponseCaches,
) -> None:
    many = [f"Nodule number {n} is unchanged since the prior." for n in range(20)]
    cleaner(caches, "spans", "rules", *["{}"] * 40).clean([" ".join(many)])
    again = cleaner(caches, "spans", "rules", *[PROSE] * 200)
    (cleaned,) = again.clean([" ".join([*many, *NODULES])])
    assert isinstance(cleaned, CleanedText)
    assert len(cleaned.by_rules) == FEWEST_UNITS
