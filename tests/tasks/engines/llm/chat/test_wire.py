"""Bodies out, answers in."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.engines.llm.chat.engine import ChatRequest, Completion, Message
from tasks.engines.llm.chat.settings import Sampling
from tasks.engines.llm.chat.wire import (
    SCHEMA_FIELDS,
    BadAnswerError,
    chat_body,
    read_answer,
    unfenced,
    without_thoughts,
)
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


@pytest.mark.parametrize(
    "count", [10**30, -7, "12", 12.0, float("nan"), float("inf"), True, None, [3], {}], ids=str
)
def test_a_count_that_cannot_be_one_is_unknown(count):
    body = completion("text")
    body["usage"] = {"prompt_tokens": count, "completion_tokens": 3}
    read = json.loads(json.dumps(body))  # NaN and Infinity, as lenient servers write them
    assert read_answer(read, 1.0) == Completion("text", "stop", 0, 3, 1.0)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>b", "b"),
        ("  <Think>a</Think>\n b </think> c", "b </think> c"),
        ("a </thinking>\n\nb", "b"),
        ("<think>a", ""),
        ("<reasoning>a\n</reasoning>\n[]", "[]"),
        ("[THINK]a[/THINK]b", "b"),
        ("<unused94>thought\na<unused95>b", "b"),
        ("<|channel>thought\na<channel|>b", "b"),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "b"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant"
            "<|channel|>final<|message|>b<|return|>",
            "b",
        ),
        ("<|channel|>final <|constrain|>json<|message|>[]", "[]"),
        ("<|channel|>analysis<|message|>a", ""),
        ("plain <b>bold</b> text", "plain <b>bold</b> text"),
        ('{"1": "<think> is a word here"}', '{"1": "<think> is a word here"}'),
        ("", ""),
    ],
)
def test_reasoning_in_front_of_an_answer_is_left_out(text, answer):
    assert without_thoughts(text) == answer


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ("```\n[]\n```\n", "[]"),
        ("```JSON\n[]```", "[]"),
        ('Here it is:\n```json\n{"a": 1}\n```\nLet me know.', '{"a": 1}'),
        ("First:\n```\n[1]\n```\nbetter:\n```json\n[2]\n```", "[2]"),
        ('{"a": "\n```\n[]\n```"}', '{"a": "\n```\n[]\n```"}'),
        ("[] ``` []", "[] ``` []"),
    ],
)
def test_a_code_fence_is_taken_off(text, inside):
    assert unfenced(text) == inside


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
