"""Bodies out, answers in."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.engines.llm.chat.engine import ChatRequest, Completion, Message
from tasks.engines.llm.chat.settings import Sampling
from tasks.engines.llm.chat.wire import SCHEMA_FIELDS, BadAnswerError, chat_body, read_answer
from tasks.engines.protocols import Failure
from tests.tasks.engines.llm.misbehaving_server import CARRIERS, completion
from tests.tasks.engines.llm.scripted import texts_of

REQUEST = ChatRequest((Message("system", "s"), Message("user", "u")), 9, {"type": "object"})


@pytest.mark.parametrize("field", SCHEMA_FIELDS)
def test_each_field_carries_the_schema(field):
    body = chat_body(REQUEST, Sampling(model="m"), field)
    assert CARRIERS[field](body) == {"type": "object"}
    assert body["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
    ]


def test_what_a_completion_costs_and_why_it_ended():
    answer = read_answer(completion("text", finish_reason="length"), 1.5)
    assert answer == Completion("text", "length", 7, 3, 1.5)


def test_servers_that_report_no_usage():
    body = completion("text") | {"usage": None}
    assert read_answer(body, 1.0) == Completion("text", "stop", 0, 0, 1.0)


def test_an_answer_is_always_text_that_can_be_stored():
    cut_emoji = json.loads(json.dumps(completion("lungs \ud83d clear")))
    assert texts_of([read_answer(cut_emoji, 1.0)]) == ["lungs ? clear"]


def test_a_refusal_is_a_failure_not_an_answer():
    body = completion(None)
    body["choices"][0]["message"]["refusal"] = "I cannot help with that."
    answer = read_answer(body, 1.0)
    assert isinstance(answer, Failure)
    assert answer.reason == "refused"
    assert "I cannot help" in answer.detail


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
keys = st.sampled_from(["choices", "message", "content", "finish_reason", "usage", "refusal"])
bodies = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=12,
)


@given(bodies)
def test_whatever_comes_back_is_an_answer_or_a_bad_answer(body):
    with suppress(BadAnswerError):
        assert isinstance(read_answer(body, 1.0), Completion | Failure)
