"""The engine against real local servers that misbehave in every way that servers do."""

import asyncio
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import takewhile

import pytest

from tasks.engines.cancellation import RunCancelledError, cancel_waits_on_error
from tasks.engines.llm.chat import openai_server
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, Message
from tasks.engines.llm.chat.wire import SCHEMA_FIELDS
from tasks.engines.metering import metered
from tasks.engines.protocols import Failure
from tests.tasks.engines.llm.misbehaving_server import MisbehavingServer

SCHEMA = {"type": "object", "properties": {"finding": {"enum": ["nodule"]}}}
REASONS = {
    **dict.fromkeys(("half", "wrong", "empty", "null", "abort"), "bad_answer"),
    **dict.fromkeys(("500", "503"), "server_error"),
    **dict.fromkeys(("429", "429-date"), "rate_limited"),
    **dict.fromkeys(("reset", "cut"), "connection_lost"),
    "hang": "timeout",
    "too-long": "prompt_too_long",
}
FINAL = {"ok", "slow", "too-long"}


def ask(*contents, schema=None):
    return [ChatRequest((Message("user", content),), 16, schema) for content in contents]


@pytest.fixture
def no_backoff(monkeypatch):
    monkeypatch.setattr(openai_server, "_FIRST_BACKOFF_S", 0.001)


def script_for(n):
    """Trouble for three requests in ten, up to more of it than there are attempts."""
    if n % 250 == 0:
        return "hang ok"
    if n % 50 == 0:
        return "slow"
    chance = random.Random(n)  # noqa: S311
    length = chance.choice([1, 1, 2, 4]) if chance.random() < 0.3 else 0
    return " ".join(chance.choices(sorted(set(REASONS) - {"hang"}), k=length))


def test_ten_thousand_requests_to_a_misbehaving_server(server, engine, monkeypatch):
    monkeypatch.setattr(openai_server, "_FIRST_BACKOFF_S", 0.05)
    retries = 3
    scripts = [script_for(n) for n in range(10_000)]
    misbehaving = server(slow_s=0.2)
    client = engine(misbehaving, retries=retries, answer_timeout_s=5, max_concurrency=64)
    with metered() as used:
        answers = client.complete(ask(*(f"{n}: {script}" for n, script in enumerate(scripts))))

    expected_attempts = 0
    expected: Counter[str] = Counter()
    for n, (script, answer) in enumerate(zip(scripts, answers, strict=True)):
        behaviours = [*script.split(), "ok"]
        transient = list(takewhile(lambda behaviour: behaviour not in FINAL, behaviours))
        attempts = min(len(transient), retries) + 1
        last = behaviours[attempts - 1]
        expected_attempts += attempts
        expected[REASONS.get(last, "answered")] += 1
        assert misbehaving.attempts[str(n)] == attempts, script
        if last in REASONS:
            assert isinstance(answer, Failure)
            assert answer.reason == REASONS[last]
        else:
            assert isinstance(answer, Completion)
            assert answer.text == f"answer to {n}"
        assert misbehaving.answered[str(n)] == (last not in REASONS)

    assert sum(expected.values()) == len(answers) == used["requests"] == 10_000
    assert expected.keys() == {"answered", *REASONS.values()} - {"timeout"}
    assert set(misbehaving.met) == {"ok", "slow", *REASONS}
    trials = misbehaving.attempts["{}"]
    assert trials < 20
    assert used["retries"] == expected_attempts - 10_000
    assert misbehaving.attempts.total() == expected_attempts + trials
    assert used["tokens_in"] == 7 * expected["answered"]
    assert used["tokens_out"] == 3 * expected["answered"]


@pytest.mark.parametrize("behaviour", sorted(set(REASONS) - FINAL))
def test_gives_up_after_the_bounded_number_of_attempts(behaviour, server, engine, no_backoff):
    misbehaving = server()
    recovery_s = 0.3 if behaviour == "hang" else 10
    question = f"a: {behaviour} {behaviour} {behaviour}"
    (answer,) = engine(misbehaving, answer_timeout_s=recovery_s).complete(ask(question))
    assert isinstance(answer, Failure)
    assert answer.reason == REASONS[behaviour]
    attempts = 2 if behaviour == "hang" else 3
    assert f"{attempts} attempts" in answer.detail
    assert misbehaving.attempts["a"] == attempts


# Whose fault a failure is


@pytest.mark.parametrize("behaviour", ["500", "429", "400", "418", "null", "reset", "too-long"])
def test_a_server_that_only_ever_fails_ends_the_run(behaviour, server, engine, no_backoff):
    broken = server(always=behaviour)
    with pytest.raises(EngineError, match=r"fails at every request.*run again") as stopped:
        engine(broken, max_concurrency=4).complete(ask(*map(str, range(2000))))
    assert "\n" not in str(stopped.value)
    assert broken.attempts.total() <= 4 * 3 + 3


def test_callers_of_a_broken_server_all_stop(server, engine, no_backoff):
    client = engine(server(always="500"))

    def run(thread):
        with pytest.raises(EngineError, match="fails at every request"):
            client.complete(ask(thread))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, "abcd"))


def test_a_request_that_kills_its_answer_is_set_aside_alone(server, engine, no_backoff):
    sound = server()
    answers = engine(sound).complete(ask("a: 500 500 500", *map(str, range(50))))
    assert [type(answer) for answer in answers] == [Failure] + [Completion] * 50


def test_poisoned_requests_are_set_aside_however_many_come_in_a_row(server, engine, no_backoff):
    sound = server()
    client = engine(sound, max_concurrency=1)
    answers = client.complete(ask(*(f"{n}: 500 500 500" for n in range(30))))
    assert {answer.reason for answer in answers} == {"server_error"}
    assert sound.attempts["{}"] == 30


def test_the_trial_keeps_instructions_and_schema_and_leaves_the_report_out(
    server, engine, monkeypatch
):
    bodies = []
    reply = MisbehavingServer._chat

    async def note(self, body, writer):
        bodies.append(body)
        await reply(self, body, writer)

    monkeypatch.setattr(MisbehavingServer, "_chat", note)
    messages = (Message("system", "rules"), Message("user", "secret: too-long"))
    (answer,) = engine(server()).complete([ChatRequest(messages, 16)])
    assert answer.reason == "prompt_too_long"
    first, trial = bodies
    assert trial == first | {"messages": [first["messages"][0], {"role": "user", "content": "{}"}]}


def test_one_report_that_is_too_long_is_set_aside_alone(server, engine):
    giant = ChatRequest((Message("system", "rules"), Message("user", "word " * 900)), 900)
    (answer,) = engine(server(context=100)).complete([giant])
    assert answer.reason == "prompt_too_long"


def test_a_context_too_small_for_the_instructions_ends_the_run(server, engine):
    request = ChatRequest((Message("system", "rule " * 200), Message("user", "a")), 16)
    with pytest.raises(EngineError, match=r"prompt_too_long.*maximum context length"):
        engine(server(context=100)).complete([request])


def test_a_server_that_worked_before_is_given_time_to_recover(server, engine, no_backoff):
    flaky = server()
    client = engine(flaky, server_wait_s=20)
    client.complete(ask("a"))
    flaky.always = "500"
    threading.Timer(1.0, lambda: setattr(flaky, "always", None)).start()
    (answer,) = client.complete(ask("b: 500 500 500"))
    assert answer.reason == "server_error"
    assert client.complete(ask("c"))[0].text == "answer to c"


def test_a_server_that_does_not_recover_ends_the_run(server, engine, no_backoff):
    flaky = server()
    client = engine(flaky, server_wait_s=0.5)
    client.complete(ask("a"))
    flaky.always = "500"
    with pytest.raises(EngineError, match="fails at every request"):
        client.complete(ask("b"))


def test_waits_are_called_off_together(server, engine):
    hanging = server(always="hang")
    client = engine(hanging, answer_timeout_s=600)
    ended = []

    def wait(context, content):
        with pytest.raises(RunCancelledError):
            context.run(client.complete, ask(content))
        ended.append(content)

    threads = []

    def interrupted():
        with cancel_waits_on_error():
            for content in "ab":
                threads.append(threading.Thread(target=wait, args=(copy_context(), content)))
                threads[-1].start()
            while hanging.in_flight < 2:
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    for thread in threads:
        thread.join(5)
    assert sorted(ended) == ["a", "b"]
    hanging.always = None
    assert client.complete(ask("c"))[0].text == "answer to c"


def test_threads_that_ask_first_at_the_same_time_share_one_loop(monkeypatch):
    loops = []
    start = asyncio.new_event_loop

    def slow():
        time.sleep(0.1)
        return start()

    monkeypatch.setattr(asyncio, "new_event_loop", slow)
    openai_server._start_loop.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        loops = list(pool.map(lambda _: openai_server._background_loop(), range(4)))
    assert len(set(loops)) == 1


def test_waits_for_as_long_as_the_server_asks(server, engine, no_backoff, monkeypatch):
    slept = []
    sleep = asyncio.sleep

    async def note(seconds):
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr("tasks.engines.llm.chat.openai_server.asyncio.sleep", note)
    monkeypatch.setattr("tasks.engines.llm.chat.endpoint.retry_after_s", lambda _: 7.0)
    engine(server()).complete(ask("a: 429"))
    assert [seconds for seconds in slept if 7 <= seconds < 7.1]


def test_a_wait_of_hours_ends_the_run(server, engine, monkeypatch):
    monkeypatch.setattr("tasks.engines.llm.chat.endpoint.retry_after_s", lambda _: 3600.0)
    with pytest.raises(EngineError, match=r"wait of 3600 s: run again"):
        engine(server()).complete(ask("a: 429"))


def test_every_sampling_parameter_is_sent(server, engine, monkeypatch):
    bodies = []
    answer = MisbehavingServer._chat

    async def note(self, body, writer):
        bodies.append(body)
        await answer(self, body, writer)

    monkeypatch.setattr(MisbehavingServer, "_chat", note)
    engine(server(), temperature=0.5, top_p=0.9, seed=11).complete(ask("a"))
    assert bodies == [
        {
            "model": "model",
            "messages": [{"role": "user", "content": "a"}],
            "max_tokens": 16,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 11,
        }
    ]


def test_fingerprint_is_what_decides_the_answers(engine):
    near, other = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"
    one = engine(near, revision="abc").fingerprint
    assert one == engine(other, revision="abc", max_concurrency=2).fingerprint
    for change in ({"temperature": 0.1}, {"top_p": 0.5}, {"seed": 1}, {"revision": "b"}):
        assert one != engine(near, **({"revision": "abc"} | change)).fingerprint


def test_threads_share_one_bound_and_get_their_own_answers(server, engine):
    busy = server(always="slow", slow_s=0.01)
    client = engine(busy, max_concurrency=8)

    def run(thread):
        with metered() as used:
            answers = client.complete(ask(*(f"{thread}.{n}" for n in range(100))))
        return used["requests"], [answer.text for answer in answers]

    with ThreadPoolExecutor(6) as pool:
        for thread, (count, texts) in enumerate(pool.map(run, range(6))):
            assert count == 100
            assert texts == [f"answer to {thread}.{n}" for n in range(100)]
    assert busy.most_in_flight == 8


def test_works_in_a_thread_that_runs_an_event_loop(server, engine):
    client = engine(server())

    async def inside():
        return client.complete(ask("a"))

    assert asyncio.run(inside())[0].text == "answer to a"


def test_no_requests_no_server_needed(engine):
    assert engine("http://127.0.0.1:9/v1").complete([]) == []


# Several servers, and servers that come and go


def closed_port():
    gone = MisbehavingServer().start()
    gone.stop()
    return gone.url


def test_a_server_that_is_down_is_left_out(server, engine, no_backoff):
    answers = engine(closed_port(), server()).complete(ask(*map(str, range(50))))
    assert [answer.text for answer in answers] == [f"answer to {n}" for n in range(50)]


def test_a_server_that_goes_down_is_replaced_by_the_other(server, engine, no_backoff):
    first, second = server(always="slow", slow_s=0.02), server(always="slow", slow_s=0.02)
    client = engine(first, second, max_concurrency=4)
    threading.Timer(0.3, first.stop).start()
    answers = client.complete(ask(*map(str, range(400))))
    assert all(isinstance(answer, Completion) for answer in answers)
    assert first.answered.total() > 0
    assert second.answered.total() > first.answered.total()


def test_the_least_busy_server_gets_the_request(server, engine):
    slow, fast = server(always="slow", slow_s=0.3), server(always="slow", slow_s=0.01)
    client = engine(slow, fast, max_concurrency=4)
    client.complete(ask("a"))
    time.sleep(0.1)  # both have passed the capability check
    client.complete(ask(*map(str, range(200))))
    assert 0 < slow.answered.total() < fast.answered.total() / 3


def test_a_server_whose_answers_keep_failing_is_rested(server, engine, no_backoff):
    broken, sound = server(always="500"), server(always="slow", slow_s=0.02)
    answers = engine(broken, sound, max_concurrency=4).complete(ask(*map(str, range(200))))
    assert all(isinstance(answer, Completion) for answer in answers)
    assert broken.attempts.total() < 30


def test_the_run_goes_on_when_its_only_server_is_restarted(server, engine, no_backoff):
    only = server(always="slow", slow_s=0.02)
    client = engine(only, max_concurrency=4)

    def restart():
        only.stop()
        time.sleep(0.5)
        only.start()

    timer = threading.Timer(0.3, restart)
    timer.start()
    answers = client.complete(ask(*map(str, range(200))))
    timer.join()
    assert [answer.text for answer in answers] == [f"answer to {n}" for n in range(200)]


def test_shakes_hands_anew_with_a_server_that_comes_back_as_another(server, engine, no_backoff):
    only = server(honours=["guided_json"])
    client = engine(only)
    client.complete(ask("a", schema=SCHEMA))
    only.stop()
    only.honours = ["structured_outputs"]
    threading.Timer(0.5, only.start).start()
    (answer,) = client.complete(ask("b", schema=SCHEMA))
    assert answer.text == '{"finding": "nodule"}'


def test_a_server_that_answers_its_check_with_errors_only_ends_the_run(server, engine, monkeypatch):
    monkeypatch.setattr("tasks.engines.llm.chat.capabilities._BROKEN_AFTER_S", 0.0)
    monkeypatch.setattr("tasks.engines.llm.chat.capabilities._POLL_S", 0.01)
    broken = server(at_schema="500")
    with pytest.raises(EngineError, match=r"answers its check with errors only .500 status 500"):
        engine(broken, retries=0, server_wait_s=60).complete(ask("a", schema=SCHEMA))


def test_a_server_that_stays_busy_is_quoted(server, engine):
    busy = server(at_schema="429")
    with pytest.raises(EngineError, match=r"No model server answered at .*it says: 429 busy"):
        engine(busy, retries=0, server_wait_s=2).complete(ask("a", schema=SCHEMA))


def test_no_server_ends_the_run_with_one_sentence(engine):
    url = closed_port()
    with pytest.raises(EngineError, match=rf"No model server answered at {url} for 0.5 s"):
        engine(url, server_wait_s=0.5).complete(ask("a"))


def test_waits_while_weights_are_loaded(server, engine):
    loading = server(health=503)
    threading.Timer(0.7, lambda: setattr(loading, "health", 200)).start()
    started = time.monotonic()
    assert engine(loading).complete(ask("a"))[0].text == "answer to a"
    assert time.monotonic() - started > 0.6


def test_a_server_that_is_busy_at_the_check_is_waited_for(server, engine):
    busy = server(at_schema="500")
    threading.Timer(1.0, lambda: setattr(busy, "at_schema", None)).start()
    (answer,) = engine(busy, retries=1).complete(ask("a", schema=SCHEMA))
    assert isinstance(answer, Completion)


def test_an_unusable_server_leaves_the_work_to_the_others(server, engine):
    deaf, good = server(honours=()), server()
    answers = engine(deaf, good).complete(ask(*map(str, range(20)), schema=SCHEMA))
    assert all(isinstance(answer, Completion) for answer in answers)
    assert not deaf.answered.keys() & {str(n) for n in range(20)}


def test_a_server_without_health_page_is_asked_for_its_models(server, engine):
    assert engine(server(health=404)).complete(ask("a"))[0].text == "answer to a"


# What ends the run at once


def test_a_wrong_key_ends_the_run(server, engine, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "wrong")
    guarded = server(api_key="right", models=())
    with pytest.raises(EngineError, match=r"401 Unauthorized.*`api_key_variable`"):
        engine(guarded, api_key_variable="TEST_KEY").complete(ask(*"abcdef"))
    assert guarded.attempts.total() == 0


def test_the_key_comes_from_the_environment(server, engine, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "right")
    client = engine(server(api_key="right"), api_key_variable="TEST_KEY")
    assert client.complete(ask("a"))[0].text == "answer to a"
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(EngineError, match="TEST_KEY"):
        engine("http://127.0.0.1:9/v1", api_key_variable="TEST_KEY")


def test_another_model_than_the_one_named_ends_the_run(server, engine):
    with pytest.raises(EngineError, match="serves llama, not model"):
        engine(server(models=["llama"])).complete(ask("a"))


@pytest.mark.parametrize(("status", "says"), [("307", "redirects are not"), ("404", "/v1")])
def test_answers_that_hold_for_every_request_end_the_run(status, says, server, engine):
    misbehaving = server(always=status)
    with pytest.raises(EngineError, match=says):
        engine(misbehaving, max_concurrency=1).complete(ask(*"abcdef"))
    assert misbehaving.attempts.total() == 1


# Capability check


@pytest.mark.parametrize("refuses", [True, False])
@pytest.mark.parametrize("field", SCHEMA_FIELDS)
def test_finds_the_field_that_constrains(field, refuses, server, engine):
    picky = server(honours=[field], refuses_unknown=refuses)
    answers = engine(picky).complete(ask("a", "b", schema=SCHEMA))
    assert [answer.text for answer in answers] == ['{"finding": "nodule"}'] * 2
    probes = list(SCHEMA_FIELDS).index(field) + 1
    assert picky.fields == [*list(SCHEMA_FIELDS)[:probes], field, field]


def test_a_server_that_ignores_every_schema_is_noticed_before_the_first_report(server, engine):
    deaf = server(honours=())
    client = engine(deaf)
    assert client.complete(ask("free text"))[0].text == "answer to free text"
    with pytest.raises(EngineError, match=r"does not constrain its answers to a JSON schema"):
        client.complete(ask(*map(str, range(1000)), schema=SCHEMA))
    assert len(deaf.fields) == len(SCHEMA_FIELDS)


def test_a_proxy_from_the_environment_is_not_used_for_this_machine(server, engine, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, closed_port())
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert engine(server()).complete(ask("a"))[0].text == "answer to a"
