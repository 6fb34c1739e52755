"""Servers that do not answer as expected: read all the same, or reported with what to set."""

import gzip
import threading
import time
import zlib
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.engines.llm.chat import openai_server
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, Message
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.llm.chat.timed import MeteredEngine
from tasks.engines.metering import metered
from tests.tasks.engines.llm.misbehaving_server import MisbehavingServer, completion
from tests.tasks.engines.llm.plain_server import (
    PlainServer,
    Reply,
    answered,
    as_json,
    followed,
    refusal,
    self_signed,
)

SCHEMA = {"type": "object", "properties": {"finding": {"enum": ["nodule"]}}}
FOUND = '{"finding": "nodule"}'


def ask(schema=SCHEMA, *contents):
    turns = [(Message("system", "rules"), Message("user", one)) for one in contents or ["a"]]
    return [ChatRequest(messages, 16, schema) for messages in turns]


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch):
    monkeypatch.setattr(openai_server, "_FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr("tasks.engines.llm.chat.capabilities._FIRST_RETRY_S", 0.001)


# Answers that no request can use: the server's own words, and what to set


UNUSABLE = {
    "reasoning only": (answered(None, reasoning_content="Let me think"), "`thinking_tokens`"),
    "reasoning, vLLM": (answered("", reasoning="Let me think"), "enable_thinking: false"),
    "a tool call": (answered(None, tool_calls=[{"id": "1"}]), "calls a tool.*tool-call-parser"),
    "nothing": (answered(None), "has no content.*It sent: .*chat.completion"),
    "an image": (answered([{"type": "image_url", "image_url": "x"}]), "has no content"),
    "an error in a 200": (as_json({"error": {"message": "no luck today"}}), "no luck today"),
    "an error's words": (as_json({"error": "no luck today"}), "no luck today"),
    "an error in a choice": (
        as_json({"choices": [{"error": {"message": "upstream is gone"}}]}),
        "upstream is gone",
    ),
    "another interface": (as_json({"message": {"content": "Paris"}}), "no choices.*Paris"),
    "a completion of text": (as_json({"choices": [{"text": "Paris"}]}), "no message.*Paris"),
    "a list": (as_json(["Paris"]), "no choices.*Paris"),
    "a web page": (
        (200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><title>Chat UI</title><p>Hello"),
        "not JSON but text/html.*a web page, 'Chat UI'",
    ),
    "a stream": (
        (200, {"Content-Type": "text/event-stream"}, b'data: {"choices": []}\n\n'),
        "not JSON but text/event-stream",
    ),
    "an empty body": ((200, {}, b""), "not JSON"),
    "another packing": ((200, {"Content-Encoding": "br"}, b"\x0b"), "packed as 'br'"),
    "a broken packing": ((200, {"Content-Encoding": "gzip"}, b"not gzip"), "cannot be unpacked"),
}


@pytest.mark.parametrize(("reply", "says"), UNUSABLE.values(), ids=UNUSABLE)
def test_answers_that_cannot_be_used_are_reported_before_the_first_report(reply, says, engine):
    with (
        PlainServer(lambda _: reply) as server,
        pytest.raises(EngineError, match=rf"is up, but no answer.*{says}") as stopped,
    ):
        engine(server, server_wait_s=600, retries=5).complete(ask())
    assert "start it" not in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert len(server.bodies) <= 10


@pytest.mark.parametrize("kind", ["reasoning only", "a tool call", "an error in a 200"])
def test_they_are_reported_without_a_schema_too(kind, engine):
    reply, says = UNUSABLE[kind]
    with PlainServer(lambda _: reply) as server, pytest.raises(EngineError, match=says):
        engine(server, server_wait_s=600).complete(ask(None))


def test_an_error_in_a_200_is_judged_by_the_status_that_it_names(engine):
    busy = as_json({"error": {"message": "busy", "code": 429}})
    replies = iter([busy, busy])
    with PlainServer(lambda body: next(replies, answered(followed(body)))) as server:
        assert engine(server).complete(ask())[0].text == FOUND
    wrong = as_json({"error": {"message": "no such key", "code": 401}})
    with PlainServer(lambda _: wrong) as server, pytest.raises(EngineError, match="API key"):
        engine(server).complete(ask())


# Answers that are read all the same


READ = {
    "parts": lambda text: answered(
        [{"type": "text", "text": text[:5]}, {"type": "text", "text": text[5:]}]
    ),
    "parts with reasoning": lambda text: answered(
        [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}]
    ),
    "parts of plain text": lambda text: answered([text]),
    "one part": lambda text: answered({"type": "text", "text": text}),
    "a thought": lambda text: answered(f"<think>\nIs it {{}}?\n</think>\n\n{text}"),
    "two thoughts": lambda text: answered(f"<think>a</think><think>b</think>{text}"),
    "an empty thought": lambda text: answered(f"<think>\n\n</think>\n{text}"),
    "a thought begun by the template": lambda text: answered(f"Hm. Yes.\n</think>\n{text}"),
    "a thought of Magistral": lambda text: answered(f"[THINK]hm[/THINK]{text}"),
    "channels": lambda text: answered(
        f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>{text}"
    ),
    "a thought of MedGemma": lambda text: answered(f"<unused94>thought\nhm<unused95>{text}"),
    "a thought beside": lambda text: answered(text, reasoning_content="hm"),
}
ENDS = [None, "", "eos_token", "end_turn"]


@pytest.mark.parametrize("write", READ.values(), ids=READ)
@pytest.mark.parametrize("schema", [SCHEMA, None], ids=["schema", "free"])
def test_answers_in_other_forms_are_read(write, schema, engine):
    with PlainServer(lambda body: write(followed(body))) as server:
        (answer,) = engine(server).complete(ask(schema))
    assert answer.text == (FOUND if schema else "answer to a")


@pytest.mark.parametrize("around", ["", "Sure! Here it is:\n"])
def test_a_fence_is_accepted_at_the_handshake_and_kept_for_the_reader(around, engine):
    reply = lambda body: answered(f"{around}```json\n{followed(body)}\n```")  # noqa: E731
    with PlainServer(reply) as server:
        (answer,) = engine(server).complete(ask())
    assert FOUND in answer.text


@pytest.mark.parametrize("end", ENDS, ids=str)
def test_an_answer_without_a_usual_finish_reason_is_whole(end, engine):
    reply = lambda body: as_json(completion(followed(body), finish_reason=end))  # noqa: E731
    with PlainServer(reply) as server:
        (answer,) = engine(server).complete(ask())
    assert (answer.text, answer.finish_reason) == (FOUND, "stop")


def test_a_thought_that_was_cut_leaves_no_answer(engine):
    cut = as_json(completion("<think> first of all", finish_reason="length"))
    with PlainServer(lambda _: cut) as server:
        (answer,) = engine(server).complete(ask(None))
    assert (answer.text, answer.finish_reason) == ("", "length")


def test_a_thought_that_is_cut_at_the_handshake_is_told_with_what_to_set(engine):
    cut = as_json(completion("<think> first of all", finish_reason="length"))
    with (
        PlainServer(lambda _: cut) as server,
        pytest.raises(EngineError, match=r"only reasons.*`thinking_tokens`.*enable_thinking"),
    ):
        engine(server).complete(ask())


BROKEN = {
    "500": refusal("xgrammar failed", 500),
    "an error in a 200": as_json({"error": {"message": "xgrammar failed", "code": 500}}),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
def test_a_broken_server_is_asked_no_more_once_its_time_is_over(reply, engine, monkeypatch):
    monkeypatch.setattr("tasks.engines.llm.chat.capabilities._BROKEN_AFTER_S", 0.0)
    with (
        PlainServer(lambda _: reply) as server,
        pytest.raises(EngineError, match=r"errors only \(500 xgrammar failed\)"),
    ):
        engine(server, server_wait_s=600, retries=5).complete(ask())
    assert len(server.bodies) == 1


def test_what_a_server_that_refuses_access_says_is_not_taken_for_a_wrong_key(engine):
    expired = refusal("your licence has expired", 403)
    with (
        PlainServer(lambda _: expired) as server,
        pytest.raises(EngineError, match=r"403 your licence has expired.*reason that it names"),
    ):
        engine(server).complete(ask())


# Parts of a request that a server refuses


EXTRA = (
    '[{"type": "extra_forbidden", "loc": ["body", "%s"], "msg": "Extra inputs are not permitted"}]'
)
BUDGET = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead."
)
REFUSED = {
    "max_tokens, OpenAI": ("max_tokens", refusal(BUDGET, param="max_tokens")),
    "max_tokens, pydantic": ("max_tokens", as_json({"detail": EXTRA % "max_tokens"}, 422)),
    "seed": ("seed", refusal("Unrecognized request argument supplied: seed")),
    "seed, pydantic": ("seed", as_json({"detail": [EXTRA % "seed"]}, 422)),
    "top_p": ("top_p", refusal("Unsupported parameter", param="top_p")),
    "seed in a 200": ("seed", as_json({"error": {"message": "unknown field `seed`"}})),
}


@pytest.mark.parametrize(("name", "reply"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("schema", [SCHEMA, None], ids=["schema", "free"])
def test_a_refused_parameter_that_decides_nothing_is_left_out(name, reply, schema, engine):
    with PlainServer(lambda body: reply if name in body else answered(followed(body))) as server:
        client = engine(server)
        with metered() as used:
            answers = client.complete(ask(schema, *map(str, range(20))))
        assert all(isinstance(answer, Completion) for answer in answers)
        assert used["retries"] == 0
        refused = [body for body in server.bodies if name in body]
        assert len(refused) <= 20
        before = len(server.bodies)
        client.complete(ask(schema, "later"))
        (later,) = server.bodies[before:]
    assert name not in later
    assert ("max_completion_tokens" in later) == (name == "max_tokens")


DECIDING: dict[str, tuple[dict[str, Any], str]] = {
    "temperature": ({}, "Unsupported value: 'temperature' does not support 0 with this model."),
    "seed": ({"temperature": 0.5}, "seed is not supported"),
    "top_p": ({"temperature": 0.5, "top_p": 0.9}, "unknown parameter top_p"),
    "chat_template_kwargs": (
        {"chat_template_kwargs": {"enable_thinking": False}},
        "Unrecognized request argument supplied: chat_template_kwargs",
    ),
}


@pytest.mark.parametrize("name", DECIDING)
def test_a_refused_parameter_that_decides_answers_is_the_users_to_leave_out(name, engine):
    given, words = DECIDING[name]
    with PlainServer(
        lambda body: refusal(words, param=name) if name in body else answered(followed(body))
    ) as server:
        with pytest.raises(EngineError, match=rf"refuses `{name}`.*(null|leave)"):
            engine(server, **given).complete(ask())
        left_out: dict[str, Any] = {name: {} if name == "chat_template_kwargs" else None}
        client = engine(server, **(given | left_out))
        assert client.complete(ask())[0].text == FOUND
        assert client.fingerprint != engine(server, **given).fingerprint


NO_SYSTEM = {
    "gemma": refusal("System role not supported"),
    "gemma, llama.cpp": refusal("Value is not callable: System role not supported", 500, code=500),
    "mistral": refusal("Only user and assistant roles are supported!"),
    "older mistral": refusal("Conversation roles must alternate user/assistant/user/assistant/..."),
    "another": refusal("This model does not support system messages."),
    "strict": as_json({"detail": [{"msg": "Unexpected role: 'system'"}]}, 422),
}


@pytest.mark.parametrize("reply", NO_SYSTEM.values(), ids=NO_SYSTEM)
@pytest.mark.parametrize("schema", [SCHEMA, None], ids=["schema", "free"])
def test_a_template_without_system_role_gets_the_rules_in_the_users_turn(reply, schema, engine):
    def chat(body):
        has_system = any(turn["role"] == "system" for turn in body["messages"])
        return reply if has_system else answered(followed(body))

    with PlainServer(chat) as server:
        client = engine(server)
        (answer,) = client.complete(ask(schema))
        assert isinstance(answer, Completion)
        before = len(server.bodies)
        shots = (Message("user", "q"), Message("assistant", "r"), Message("user", "b"))
        client.complete([ChatRequest((Message("system", "rules"), *shots), 16, schema)])
        (later,) = server.bodies[before:]
    assert [turn["role"] for turn in later["messages"]] == ["user", "assistant", "user"]
    assert later["messages"][0]["content"] == "rules\n\nq"


def test_a_refusal_that_names_no_part_of_the_request_is_the_requests_own(engine):
    with PlainServer(
        lambda body: refusal("too rude") if "rude" in str(body) else answered(followed(body))
    ) as server:
        rude, fine = engine(server).complete(ask(None, "rude", "fine"))
    assert (rude.reason, fine.text) == ("request_refused", "answer to fine")


# Reasoning models


def test_the_thinking_switch_and_a_larger_budget_are_sent_and_identify_the_answers(engine):
    with PlainServer() as server:
        plain = engine(server)
        more = engine(server, thinking_tokens=4000, chat_template_kwargs={"enable_thinking": False})
        more.complete(ask(None))
        (body,) = server.bodies
    assert body["max_tokens"] == 4016
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert plain.fingerprint.keys() == {
        "name",
        "version",
        "model",
        "revision",
        "temperature",
        "top_p",
        "seed",
    }
    assert more.fingerprint.items() > plain.fingerprint.items()
    assert hash(ServerSettings(model="m", base_urls=(server.url,), chat_template_kwargs={"a": []}))


# Addresses and names


def test_an_unknown_model_is_told_with_those_that_there_are(engine):
    with PlainServer() as server:
        server.pages["/v1/models"] = as_json({"data": [{"id": f"qwen-{n}"} for n in range(20)]})
        with pytest.raises(
            EngineError, match=r"serves qwen-0, .* 12 more, not qwen3: .*perhaps qwen-3"
        ):
            engine(server, model="qwen3").complete(ask())


@pytest.mark.parametrize(
    "reply",
    [refusal("The model `m` does not exist.", 404), refusal("bad name", code="model_not_found")],
    ids=["404", "400"],
)
def test_an_unknown_model_of_a_server_that_lists_none(reply, engine):
    with PlainServer(lambda _: reply) as server:
        del server.pages["/v1/models"]
        with pytest.raises(EngineError, match="does not serve this model; set `model`"):
            engine(server).complete(ask())


def test_an_address_without_v1_is_completed_in_words(engine):
    with PlainServer() as server:
        root = server.url.removesuffix("/v1")
        with pytest.raises(EngineError, match=rf"no model server at {root}, but one at {root}/v1"):
            engine(root).complete(ask())


@pytest.mark.parametrize("page", ["chat/completions", "models/", "chat", "health"])
def test_an_address_that_goes_on_to_a_page_is_refused(page):
    with pytest.raises(ValidationError, match="leave out /"):
        ServerSettings(model="m", base_urls=(f"http://127.0.0.1:1/v1/{page}",))


def test_a_web_page_that_forbids_is_quoted_by_its_title(engine):
    page = b"<html><head><title>Sign in &amp; go</title></head><body>" + b"x" * 9000
    with (
        PlainServer(lambda _: (403, {}, page)) as server,
        pytest.raises(EngineError, match=r"403 a web page, 'Sign in & go'") as stopped,
    ):
        engine(server).complete(ask())
    assert len(str(stopped.value)) < 400


def test_redirects_are_not_followed_round_and_round(engine):
    loop: Reply = (307, {"Location": "/v1/chat/completions?key=x"}, b"")
    with (
        PlainServer(lambda _: loop) as server,
        pytest.raises(EngineError, match=r"307 → /v1/chat/completions.*give the final") as told,
    ):
        engine(server).complete(ask())
    assert "key=x" not in str(told.value)
    assert len(server.bodies) == 1


# TLS


def test_tls_at_the_wrong_end_is_told(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.engines.llm.chat.capabilities._BROKEN_AFTER_S", 0.0)
    with PlainServer() as plain, PlainServer(tls=self_signed(tmp_path, "127.0.0.1")) as secure:
        with pytest.raises(
            EngineError, match="does not speak TLS: its address begins with http://"
        ):
            engine(plain.url.replace("http:", "https:"), server_wait_s=600).complete(ask())
        with pytest.raises(EngineError, match=r"closes them without an answer.*https://"):
            engine(secure.url.replace("https:", "http:"), server_wait_s=600).complete(ask())
    nginx: Reply = (
        400,
        {},
        b"<html><title>400 The plain HTTP request was sent to HTTPS port</title>",
    )
    with (
        PlainServer(lambda _: nginx) as behind,
        pytest.raises(EngineError, match="expects TLS, so its address begins with https://"),
    ):
        engine(behind).complete(ask())


def test_a_certificate_that_is_not_trusted_is_told_and_can_be_trusted(
    engine, tmp_path, monkeypatch
):
    certificate = self_signed(tmp_path, "127.0.0.1")
    with PlainServer(tls=certificate) as server:
        with pytest.raises(EngineError, match=r"certificate of .* not accepted.*SSL_CERT_FILE"):
            engine(server, server_wait_s=600).complete(ask())
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert engine(server).complete(ask())[0].text == FOUND
    other = self_signed(tmp_path, "elsewhere.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with PlainServer(tls=other) as server, pytest.raises(EngineError, match="issued for"):
        engine(server, server_wait_s=600).complete(ask())


# Proxies


def test_only_remote_servers_are_reached_through_the_proxy(engine, monkeypatch):
    with PlainServer() as proxy, PlainServer() as near:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        local = near.url.replace("127.0.0.1", "localhost")
        for url in (near.url, local):
            client = engine(url, allow_remote_endpoint=True)
            assert client.complete(ask(None))[0].text == "answer to a"
        assert proxy.paths == []
        proxy.pages["http://model.invalid/health"] = (200, {}, b"")
        far = engine("http://model.invalid/v1", allow_remote_endpoint=True)
        assert far.complete(ask(None))[0].text == "answer to a"
        assert "http://model.invalid/v1/chat/completions" in proxy.paths


# Sizes and speeds


LARGE = 8 * 2**20


def endless(send):
    while True:
        send(b" " * 65536)


def drip(send):
    for _ in range(1000):
        send(b" ")
        time.sleep(0.05)


def test_an_endless_answer_is_cut_off_while_it_arrives(engine):
    with PlainServer(lambda _: (200, {}, b"")) as server:
        server.stream = endless
        with pytest.raises(EngineError, match="larger than 8 MiB"):
            engine(server, retries=0).complete(ask(None))
    # The request and the trial without a report, each with what the system buffers.
    assert LARGE < server.sent < 2 * LARGE + 2 * 16 * 2**20


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_a_small_body_that_unpacks_to_a_giant_is_not_unpacked(packing, engine):
    pack = gzip.compress if packing == "gzip" else zlib.compress
    bomb = pack(b" " * 2**28)
    with (
        PlainServer(lambda _: (200, {"Content-Encoding": packing}, bomb)) as server,
        pytest.raises(EngineError, match="unpacked answer is larger than 8 MiB"),
    ):
        engine(server, retries=0).complete(ask(None))


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_a_packed_answer_that_was_not_asked_for_is_read(packing, engine):
    pack = gzip.compress if packing == "gzip" else zlib.compress

    def chat(body):
        status, headers, content = answered(followed(body))
        return status, headers | {"Content-Encoding": packing}, pack(content)

    with PlainServer(chat) as server:
        assert engine(server).complete(ask())[0].text == FOUND


def test_an_answer_that_trickles_in_meets_the_time_out_of_the_whole(engine):
    with PlainServer(lambda _: (200, {}, b"")) as server:
        server.stream = drip
        with pytest.raises(EngineError, match=r"timeout: .*no answer within 0.3 s"):
            engine(server, retries=0, answer_timeout_s=0.3).complete(ask(None))


def test_a_giant_list_of_models_is_no_list(engine):
    with PlainServer() as server:
        server.pages["/v1/models"] = (200, {}, b" " * (LARGE + 1))
        assert engine(server).complete(ask(None))[0].text == "answer to a"


# The time of GPUs


def test_the_start_of_a_server_is_no_gpu_time(server, engine):
    loading = server(health=503)
    up_at = []

    def come_up():
        up_at.append(time.perf_counter())
        loading.health = 200

    threading.Timer(1.0, come_up).start()
    with metered() as used:
        (answer,) = MeteredEngine(engine(loading, server_wait_s=60)).complete(ask(None))
    assert isinstance(answer, Completion)
    assert 0 < used["busy_us"] / 1e6 < time.perf_counter() - up_at[0]


def test_gone_server_is_still_told_to_be_started(engine):
    gone = MisbehavingServer().start()
    gone.stop()
    with pytest.raises(EngineError, match="start it and run again"):
        engine(gone, server_wait_s=0.5).complete(ask())
