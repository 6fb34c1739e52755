"""The vLLM adapter: checked against vLLM's own source, its logic by direct calls."""

import ast
import importlib.util
import inspect
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.engines.llm.chat import vllm_engine
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, Message
from tasks.engines.llm.chat.settings import VllmSettings
from tasks.engines.llm.chat.vllm_engine import (
    RefusedBatchError,
    VllmEngine,
    complete_in_batches,
    read_output,
)
from tasks.engines.protocols import Failure
from tests.tasks.engines.llm.chat.vllm_source import MEMBERS, SourceError, fetch_sources, interface

RECORDED = json.loads(Path(__file__).with_name("vllm_interface.json").read_text())
"""What the wheels hold, for machines that cannot reach them."""


@pytest.fixture(scope="session", params=sorted(RECORDED))
def vllm(request):
    """The interface of the oldest and the newest vLLM that the adapter is written for."""
    version = request.param
    recorded = {name: names.split() for name, names in RECORDED[version].items()}
    kept = Path(request.config.cache.mkdir("vllm-source")) / f"{version}.json"
    try:
        if not kept.exists():
            kept.write_text(json.dumps(fetch_sources(version)))
    except SourceError as error:
        warnings.warn(
            f"vLLM {version} is checked as recorded, not by its source: {error}", stacklevel=1
        )
        return recorded
    found = interface(json.loads(kept.read_text()))
    assert found == recorded
    return found


def calls(name):
    """The keywords of each call of a name in the adapter; positional arguments are not allowed."""
    tree = ast.parse(inspect.getsource(vllm_engine))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            assert not node.args
            yield {keyword.arg for keyword in node.keywords}


@pytest.mark.parametrize(
    ("call", "takers"),
    [
        ("LLM", ["LLM", "EngineArgs"]),
        ("self._llm.chat", ["LLM.chat"]),
        ("SamplingParams", ["SamplingParams"]),
        ("StructuredOutputsParams", ["StructuredOutputsParams"]),
    ],
)
def test_every_parameter_that_is_passed_exists(call, takers, vllm):
    (passed,) = calls(call)
    assert passed
    assert passed - {name for taker in takers for name in vllm[taker]} == set()


def test_every_field_that_is_read_exists(vllm):
    tree = ast.parse(inspect.getsource(read_output))
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    ours = {"outputs", "prompt_token_ids", "metrics"}
    assert ours <= set(vllm["RequestOutput"])
    assert {"finish_reason", "text", "token_ids"} <= set(vllm["CompletionOutput"])
    assert {"last_token_ts", "queued_ts"} <= set(vllm["RequestStateStats"])
    assert read == ours | {"finish_reason", "text", "token_ids", "last_token_ts", "queued_ts"}
    assert "get_tokenizer" in vllm["LLM methods"]
    assert "max_model_len" in vllm["ModelConfig"]


def test_every_import_exists():
    tree = ast.parse(inspect.getsource(vllm_engine))
    imports = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm")
        for alias in node.names
    }
    assert imports == {
        ("vllm", "LLM"),
        ("vllm", "SamplingParams"),
        ("vllm.sampling_params", "StructuredOutputsParams"),
        ("vllm.exceptions", "VLLMValidationError"),
    }
    for module, name in imports:
        if module != "vllm":
            assert MEMBERS[name] == str(module).replace(".", "/") + ".py"


def test_all_that_decides_an_answer_is_explicit():
    (sampling,) = calls("SamplingParams")
    assert {"max_tokens", "temperature", "top_p", "seed", "structured_outputs"} <= sampling


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_one_sentence_says_how_to_get_it():
    engine = VllmEngine(VllmSettings(model="m"))
    assert engine.complete([]) == []
    with pytest.raises(EngineError, match=r"pip install 'vllm>=0.20'"):
        engine.complete([ChatRequest((Message("user", "a"),), 4)])


def test_number_formats_are_part_of_the_fingerprint():
    plain = VllmEngine(VllmSettings(model="m"))
    quantized = VllmEngine(VllmSettings(model="m", quantization="fp8"))
    wide = VllmEngine(VllmSettings(model="m", tensor_parallel_size=8))
    assert plain.fingerprint != quantized.fingerprint
    assert plain.fingerprint == wide.fingerprint


# Prompts that are too long, and batches that are refused for one request

requests = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 10), st.booleans()), max_size=12
).map(
    lambda shapes: [
        ChatRequest((Message("user", f"{'bad' if bad else n} " * tokens),), answer)
        for n, (tokens, answer, bad) in enumerate(shapes)
    ]
)


@given(requests)
def test_each_request_gets_its_own_answer_whatever_the_others_are(batch):
    limit = 20
    chatted: list[ChatRequest] = []

    def length(request):
        return len(request.messages[0].content.split())

    def chat(requests):
        assert all(length(request) + request.max_tokens <= limit for request in requests)
        if any("bad" in request.messages[0].content for request in requests):
            raise RefusedBatchError("no grammar for this")
        chatted.extend(request for request in requests if request.messages[0].content != "{}")
        return [
            Completion(request.messages[0].content, "stop", length(request), 1, 0.1)
            for request in requests
        ]

    answers = complete_in_batches(batch, length, limit, chat)
    assert len(answers) == len(batch)
    for request, answer in zip(batch, answers, strict=True):
        if length(request) + request.max_tokens > limit:
            assert isinstance(answer, Failure)
            assert answer.reason == "prompt_too_long"
        elif "bad" in request.messages[0].content:
            assert isinstance(answer, Failure)
            assert answer.reason == "request_refused"
            assert "no grammar" in answer.detail
        else:
            assert isinstance(answer, Completion)
            assert answer.text == request.messages[0].content
    assert len(chatted) == sum(isinstance(answer, Completion) for answer in answers)


def test_instructions_that_leave_no_room_end_the_run():
    def length(request):
        return sum(len(message.content.split()) for message in request.messages)

    long = ChatRequest((Message("system", "rule " * 30), Message("user", "a b c")), 4)
    with pytest.raises(EngineError, match=r"takes 20 tokens, and the instructions .* need 35"):
        complete_in_batches([long], length, 20, lambda _: [])


def test_a_refusal_that_has_nothing_to_do_with_the_report_ends_the_run():
    def chat(requests):
        raise RefusedBatchError("no grammar for this schema")

    batch = [ChatRequest((Message("user", text),), 4, {"odd": 1}) for text in "ab"]
    with pytest.raises(EngineError, match=r"refuses every request of this kind.*no grammar"):
        complete_in_batches(batch, lambda _: 1, 20, chat)


def output(finish_reason):
    times = SimpleNamespace(queued_ts=100.0, last_token_ts=102.5)
    made = SimpleNamespace(text="[]", token_ids=(5, 6), finish_reason=finish_reason)
    return SimpleNamespace(outputs=[made], prompt_token_ids=[1, 2, 3], metrics=times)


def test_an_output_becomes_a_completion():
    assert read_output(output("length")) == Completion("[]", "length", 3, 2, 2.5)


def test_a_broken_off_output_becomes_a_failure():
    failure = read_output(output("abort"))
    assert isinstance(failure, Failure)
    assert failure.reason == "server_error"


def test_a_local_model_is_known_by_its_content(tmp_path, monkeypatch):
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path / "home"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"first")
    engine = VllmEngine(VllmSettings(model=str(folder)))
    first = engine.fingerprint
    vllm_engine._local_weights.cache_clear()  # another process
    (folder / "model.safetensors").write_bytes(b"trained on")
    second = engine.fingerprint
    assert first["weights"] != second["weights"]
    assert "weights" not in VllmEngine(VllmSettings(model="meta-llama/some-model")).fingerprint
