"""Asking again: with other words each time, and without keeping what was of no use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.store import Store
from tasks.engines.llm.cache.response_cache import CachedEngine, ResponseCaches
from tasks.engines.llm.chat.engine import ChatRequest, Completion, Message
from tasks.engines.llm.protocols.batched_requests import MALFORMED, AnswerError, request_answers
from tasks.engines.metering import metered
from tasks.engines.protocols import Failure
from tests.tasks.engines.llm.scripted import ScriptedEngine

STEP = {"name": "upper", "version": "1"}


class Upper:
    """Asks for words in capitals; a word that comes back otherwise is malformed."""

    units_per_request = 4

    def payload(self, unit: str) -> str:
        return unit

    def request(self, units: Sequence[str], complaint: str = "") -> ChatRequest:
        return ChatRequest((Message("user", " ".join([*units, complaint]).strip()),), 8)

    def read(self, text: str, units: Sequence[str]) -> list[Any | Failure]:
        words = text.split()
        if len(words) != len(units):
            raise AnswerError(f"{len(words)} words instead of {len(units)}")
        fault = Failure(MALFORMED, "no capitals")
        return [word if word.isupper() else fault for word in words]


def _ask(store: Store, engine: ScriptedEngine, *units: str) -> list[Any | Failure]:
    caches = ResponseCaches(store)
    return request_answers(CachedEngine(engine, caches), caches.for_owner(STEP), Upper(), units)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_the_same_fault_twice_is_told_in_other_words(store: Store) -> None:
    engine = ScriptedEngine("a", "a", "A")
    with metered() as usage:
        assert _ask(store, engine, "a") == ["A"]
    assert engine.data == ["a", "a no capitals", "a no capitals; then: no capitals"]
    assert (usage["cache_hits"], usage["units_retried"]) == (0, 2)


def test_invalid_answers_are_not_cached(store: Store) -> None:
    assert _ask(store, ScriptedEngine("a", "b c", "a"), "a") == [Failure(MALFORMED, "no capitals")]
    again = ScriptedEngine("a", "A")
    assert _ask(store, again, "a") == ["A"]
    assert again.data == ["a", "a no capitals"]


def test_what_was_of_use_in_a_faulty_answer_is_kept(store: Store) -> None:
    fault = Failure(MALFORMED, "no capitals")
    assert _ask(store, ScriptedEngine("A b C", "b", "b"), "a", "b", "c") == ["A", fault, "C"]
    again = ScriptedEngine("B")
    assert _ask(store, again, "a", "b", "c") == ["A", "B", "C"]
    assert again.data == ["b"]


def test_an_answer_that_was_cut_is_asked_for_again(store: Store) -> None:
    cut = Completion("A", "length", 1, 8, 0.1)
    engine = ScriptedEngine(cut, cut, "A")
    assert _ask(store, engine, "a") == ["A"]
    assert len({*engine.data}) == 3


def test_units_that_are_too_many_for_a_prompt_are_asked_apart_without_complaint(
    store: Store,
) -> None:
    engine = ScriptedEngine(Failure("prompt_too_long", "12 tokens"), "A", "B")
    assert _ask(store, engine, "a", "b") == ["A", "B"]
    assert engine.data == ["a b", "a", "b"]


def test_a_failure_of_the_engine_is_final(store: Store) -> None:
    failure = Failure("timeout", "too slow")
    engine = ScriptedEngine(failure)
    assert _ask(store, engine, "a", "b") == [failure, failure]
    assert len(engine.asked) == 1


def test_a_valid_response_is_cached_as_a_whole_too(store: Store) -> None:
    _ask(store, ScriptedEngine("A B"), "a", "b")
    caches = ResponseCaches(store)
    other_step = caches.for_owner({**STEP, "version": "2"})
    silent = CachedEngine(ScriptedEngine(), caches)
    assert request_answers(silent, other_step, Upper(), ["a", "b"]) == ["A", "B"]
