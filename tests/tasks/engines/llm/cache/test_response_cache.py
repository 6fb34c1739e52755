"""The response cache: no request is sent twice, whatever happens to the process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.store import Store, StoreError
from tasks.engines.llm.cache.response_cache import (
    CachedEngine,
    ResponseCache,
    ResponseCaches,
)
from tasks.engines.llm.cache.segments import Segments
from tasks.engines.llm.chat.engine import ChatRequest, Completion, Message
from tasks.engines.llm.digest import digest
from tasks.engines.metering import metered
from tasks.engines.protocols import Failure
from tests.tasks.engines.llm.scripted import NAME, ScriptedEngine, SpyEngine, texts_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def request(words: str) -> ChatRequest:
    return ChatRequest((Message("user", words),), 16)


def echo(requests: Sequence[ChatRequest]) -> list[Completion]:
    return [Completion(r.messages[-1].content.upper(), "stop", 3, 2, 0.5) for r in requests]


def test_an_answer_outlives_the_engine_that_asked(store: Store) -> None:
    first, later = SpyEngine(echo), SpyEngine(echo)
    requests = [request("a"), request("b"), request("a")]
    with metered() as usage:
        answers = CachedEngine(first, ResponseCaches(store)).complete(requests)
    assert texts_of(answers) == ["A", "B", "A"]
    assert len(first.asked) == 2
    assert usage["cache_hits"] == 1

    with metered() as usage:
        again = CachedEngine(later, ResponseCaches(store)).complete([*requests, request("c")])
    assert again[:3] == answers
    assert [r.messages[0].content for r in later.asked] == ["c"]
    assert usage["cache_hits"] == 3


def test_a_bucket_caches_as_a_disk_does(bucket: Store) -> None:
    CachedEngine(SpyEngine(echo), ResponseCaches(bucket)).complete([request("a")])
    later = SpyEngine(echo)
    answers = CachedEngine(later, ResponseCaches(bucket)).complete([request("a")])
    assert texts_of(answers) == ["A"]
    assert later.asked == []


def test_whatever_decides_an_answer_decides_its_name() -> None:
    base = request("a")
    others = [
        request("b"),
        ChatRequest(base.messages, 17),
        ChatRequest(base.messages, 16, {"type": "object"}),
        ChatRequest((Message("system", "a"),), 16),
    ]
    names = {digest([r.messages, r.max_tokens, r.schema]) for r in (base, *others)}
    assert len(names) == 5


def test_another_model_has_another_cache(store: Store) -> None:
    caches = ResponseCaches(store)
    caches.for_owner(NAME).put({"k": "1"})
    assert caches.for_owner(NAME | {"version": "2"}).get("k") is None
    assert caches.for_owner(dict(NAME)).get("k") == "1"


def test_failures_are_not_cached(store: Store) -> None:
    engine = ScriptedEngine(Failure("timeout", "too slow"), "fine")
    cached = CachedEngine(engine, ResponseCaches(store))
    assert cached.complete([request("a")]) == [Failure("timeout", "too slow")]
    assert texts_of(cached.complete([request("a")])) == ["fine"]


def test_the_first_answer_stays(store: Store) -> None:
    cache = ResponseCache(store, NAME)
    cache.put({"k": "1"})
    cache.put({"k": "2"})
    assert cache.get("k") == "1"


def test_a_cache_that_does_not_write_leaves_no_files(store: Store) -> None:
    cache = ResponseCache(store, NAME, writes=False)
    cache.put({"k": "1"})
    assert cache.get("k") == "1"
    assert store.list("answers") == []


@pytest.mark.parametrize("damage", ["torn", "garbage", "empty", "other columns"])
def test_a_damaged_segment_is_counted_and_asked_again(store: Store, damage: str) -> None:
    ResponseCache(store, NAME).put({"good": "1"})
    ResponseCache(store, NAME).put({"bad": "2"})
    path = next(
        path
        for path in store.list("answers")
        if pq.read_table(store.location(path)).column("key")[0].as_py() == "bad"
    )
    content = store.read(path)
    assert content is not None
    strange = pa.BufferOutputStream()
    pq.write_table(pa.table({"name": ["x"]}), strange)
    replacement = {
        "torn": content[: len(content) // 2],
        "garbage": os.urandom(300),
        "empty": b"",
        "other columns": strange.getvalue().to_pybytes(),
    }[damage]
    store.write(path, replacement)

    cache = ResponseCache(store, NAME)
    with metered() as usage:
        answers = cache.get_or_request(["good", "bad"], lambda keys: dict.fromkeys(keys, "3"))
        cache.refresh()
    assert answers == {"good": "1", "bad": "3"}
    assert usage["cache_damaged"] == 1


@pytest.mark.parametrize("answer", [None, "", "{", "nonsense", "\ud7ff", "[" * 100_000])
def test_an_answer_that_is_not_json_is_counted_and_asked_again(
    store: Store, answer: str | None
) -> None:
    Segments(store, f"answers/{digest(NAME)}").append({"a": answer, "b": "2"})
    cache = ResponseCache(store, NAME)
    with metered() as usage:
        found = cache.get_or_request(["a", "b"], lambda keys: dict.fromkeys(keys, "1"))
    assert found == {"a": "1", "b": "2"}
    assert usage["cache_damaged"] == (answer is not None)


@pytest.mark.parametrize("answer", [None, "null", "{", "[]", "7", '{"text": null}', '{"a": 1}'])
def test_what_is_no_completion_is_asked_again(store: Store, answer: str | None) -> None:
    engine = SpyEngine(echo)
    key = digest(asdict(request("a")))
    Segments(store, f"answers/{digest(NAME)}").append({key: answer})
    answers = CachedEngine(engine, ResponseCaches(store)).complete([request("a")])
    assert texts_of(answers) == ["A"]
    assert len(engine.asked) == 1


def test_a_segment_without_a_key_does_no_harm(store: Store) -> None:
    Segments(store, f"answers/{digest(NAME)}").append({None: "1", "b": "2"})  # type: ignore[dict-item]
    cache = ResponseCache(store, NAME)
    cache.refresh()
    assert cache.get("b") == "2"


def test_a_segment_counts_as_read_once_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ResponseCache(store, NAME).put({"a": "1"})
    cache = ResponseCache(store, NAME)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "read", _out_of_reach)
        with pytest.raises(StoreError):
            cache.refresh()
    cache.refresh()
    assert cache.get("a") == "1"


def _out_of_reach(_: Store, path: str) -> bytes:
    raise StoreError(f"cannot read {path}", transient=True)


def test_what_is_discarded_is_asked_anew(store: Store) -> None:
    engine = SpyEngine(echo)
    cached = CachedEngine(engine, ResponseCaches(store))
    for _ in range(2):
        cached.complete([request("a"), request("b")])
    assert len(engine.asked) == 2
    cached.discard([request("a")])
    later = SpyEngine(echo)
    for one in (cached, CachedEngine(later, ResponseCaches(store))):
        assert texts_of(one.complete([request("a"), request("b")])) == ["A", "B"]
    assert len(engine.asked) == 3
    assert [r.messages[0].content for r in later.asked] == ["a"]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("pqf"), st.sampled_from("abc")), max_size=40))
def test_merging_changes_no_answer(steps: list[tuple[str, str]]) -> None:
    """Whatever two processes put (p, q) and discard (f), with and without merging."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.engines.llm.cache.segments._SEGMENTS_BEFORE_MERGE", 3)
        store = Store(folder)
        caches = {name: ResponseCache(store, NAME) for name in "pq"}
        discarded: set[str] = set()
        for i, (what, key) in enumerate(steps):
            if what == "f":
                caches["p"].discard([key])
                discarded.add(key)
            else:
                caches[what].refresh()
                caches[what].put({key: str(i)})
        for cache in caches.values():
            cache.refresh()
        late = ResponseCache(store, NAME)
        with metered() as usage:
            late.refresh()
        known = {key for what, key in steps if what != "f"}
        assert not usage
        assert {key for key in "abc" if late.get(key)} == known - discarded
        assert len(store.list("answers", ".parquet")) <= 3 + len(steps) // 3


def test_a_reader_finds_what_is_merged_under_its_eyes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.engines.llm.cache.segments._SEGMENTS_BEFORE_MERGE", 2)
    writer = ResponseCache(store, NAME)
    writer.put({"a": "1"})
    writer.put({"b": "2"})
    read = Store.read

    def late(self: Store, path: str) -> bytes | None:
        monkeypatch.setattr(Store, "read", read)
        writer.refresh()  # puts both together and takes them away
        return read(self, path)

    monkeypatch.setattr(Store, "read", late)
    reader = ResponseCache(store, NAME)
    with metered() as usage:
        reader.refresh()
    assert len(store.list("answers", ".parquet")) == 1
    assert (reader.get("a"), reader.get("b"), usage) == ("1", "2", {})


def test_a_bucket_merges_as_a_disk_does(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.engines.llm.cache.segments._SEGMENTS_BEFORE_MERGE", 3)
    owner = {"name": "merged", "version": "1"}
    cache = ResponseCache(bucket, owner)
    for i in range(3):
        cache.put({str(i): str(i)})
    cache.refresh()
    assert len(bucket.list(f"answers/{digest(owner)}", ".parquet")) == 1
    later = ResponseCache(bucket, owner)
    later.refresh()
    assert [later.get(str(i)) for i in range(3)] == ["0", "1", "2"]


def test_a_question_in_flight_is_not_asked_again(store: Store) -> None:
    cache = ResponseCache(store, NAME)
    asked: list[str] = []
    started = threading.Event()

    def ask(keys: Sequence[str]) -> dict[str, str]:
        asked.extend(keys)
        started.set()
        time.sleep(0.2)
        return dict.fromkeys(keys, "1")

    results: list[dict[str, str]] = []
    one = threading.Thread(target=lambda: results.append(cache.get_or_request(["a", "b"], ask)))
    one.start()
    started.wait()
    results.append(cache.get_or_request(["b", "c", "a"], ask))
    one.join()
    assert sorted(asked) == ["a", "b", "c"]
    assert {key for found in results for key in found} == {"a", "b", "c"}


def test_what_another_thread_asked_in_vain_is_asked_here(store: Store) -> None:
    cache = ResponseCache(store, NAME)
    started = threading.Event()

    def fail(_: Sequence[str]) -> dict[str, str]:
        started.set()
        time.sleep(0.1)
        raise TimeoutError

    def doomed() -> None:
        with pytest.raises(TimeoutError):
            cache.get_or_request(["a"], fail)

    one = threading.Thread(target=doomed)
    one.start()
    started.wait()
    assert cache.get_or_request(["a"], lambda keys: dict.fromkeys(keys, "1")) == {"a": "1"}
    one.join()


WRITER = """
import sys
from storage.store import Store
from tasks.engines.llm.cache.response_cache import ResponseCache
store, name = sys.argv[1:]
cache = ResponseCache(Store(store), {"name": "shared", "version": "1"})
for i in range(40):
    cache.put({f"{name}-{i}": f'"{name}"', f"common-{i}": f'"{name}"'})
    cache.refresh()
"""


def test_several_processes_write_at_once(store: Store) -> None:
    command = [sys.executable, "-c", WRITER, store.root]
    writers = [subprocess.Popen([*command, name]) for name in ("x", "y", "z")]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    cache = ResponseCache(store, {"name": "shared", "version": "1"})
    with metered() as usage:
        cache.refresh()
    assert not usage
    assert len(store.list("answers", ".parquet")) < 120  # put together on the way
    assert all(cache.get(f"{name}-{i}") == f'"{name}"' for name in "xyz" for i in range(40))
    assert all(cache.get(f"common-{i}") in {'"x"', '"y"', '"z"'} for i in range(40))


CLIENT = """
import sys, time
from pathlib import Path
from storage.store import Store
from tasks.engines.llm.cache.response_cache import ResponseCaches, CachedEngine
from tasks.engines.llm.chat.engine import ChatRequest, Completion, Message
from tasks.engines.llm.digest import digest

class Engine:
    fingerprint = {"name": "slow", "version": "1"}
    def complete(self, requests):
        with open(sys.argv[2], "a") as log:
            log.writelines(r.messages[0].content + "\\n" for r in requests)
        time.sleep(0.1)
        return [Completion(r.messages[0].content, "stop", 1, 1, 0.0) for r in requests]

requests = [ChatRequest((Message("user", str(i)),), 8) for i in range(400)]
answers = CachedEngine(Engine(), ResponseCaches(Store(sys.argv[1]))).complete(requests)
assert [a.text for a in answers] == [str(i) for i in range(400)]
"""


def test_kill_9_loses_one_chunk_at_most(tmp_path: Path) -> None:
    log = tmp_path / "asked"
    command = [sys.executable, "-c", CLIENT, str(tmp_path / "store"), str(log)]
    client = subprocess.Popen(command)
    while not log.exists() or len(log.read_text().split()) < 100:
        time.sleep(0.01)
    client.send_signal(signal.SIGKILL)
    client.wait()
    before = log.read_text().split()

    subprocess.run(command, check=True)
    after = log.read_text().split()
    largest_chunk = len(before)  # chunks double: the one under way is at most half of them
    assert set(after) == {str(i) for i in range(400)}
    assert 0 <= len(after) - 400 <= largest_chunk // 2 + 16
