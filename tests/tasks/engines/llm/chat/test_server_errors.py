"""Error responses in every server's shape, and waits in both of HTTP's notations."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.engines.llm.chat.errors import read_error, retry_after_s

SHAPES = yaml.safe_load(Path(__file__).with_name("error_shapes.yaml").read_text())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["server"])
def test_each_servers_errors_are_understood(shape):
    error = read_error(shape["status"], shape["body"].encode())
    assert [error.then, error.reason] == shape["expect"]
    assert error.message or not shape["body"]
    assert bool(error.say) == (error.then == "stop")


@given(st.integers(100, 599), st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_error_is_judged(status, content):
    assert read_error(status, content).then in {"retry", "fail", "stop"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "detail", "message", "code", "type"]), inner)
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_judged(value):
    assert read_error(400, json.dumps(value).encode()).then in {"retry", "fail", "stop"}


def test_a_prompt_quoted_back_is_cut_short():
    assert len(read_error(400, b"word " * 10_000).message) <= 500


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("-3", 0.0),
        ("Tue, 24 Nov 2026 10:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 09:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(value, seconds):
    now = datetime(2026, 11, 24, 10, 0, 0, tzinfo=UTC)
    assert retry_after_s({"retry-after": value}, now) == seconds


@given(st.text())
def test_any_retry_after_is_read(value):
    wait = retry_after_s({"retry-after": value})
    assert wait is None or wait >= 0
