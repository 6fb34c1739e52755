"""The memory of answers: nothing asked twice, whatever happens to the process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.store import Store
from tasks.engines import Failure
from tasks.llm.answers import AnswerMemory, Memories, RememberingEngine, digest
from tasks.llm.chat import ChatRequest, Completion, Message
from tasks.usage import metered
from tests.tasks.llm.scripted import NAME, ScriptedEngine, SpyEngine


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
        answers = RememberingEngine(first, Memories(store)).complete(requests)
    assert [a.text for a in answers] == ["A", "B", "A"]
    assert len(first.asked) == 2
    assert usage["cache_hits"] == 1

    with metered() as usage:
        again = RememberingEngine(later, Memories(store)).complete([*requests, request("c")])
    assert again[:3] == answers
    assert [r.messages[0].content for r in later.asked] == ["c"]
    assert usage["cache_hits"] == 3


def test_a_bucket_remembers_as_a_disk_does(bucket: Store) -> None:
    RememberingEngine(SpyEngine(echo), Memories(bucket)).complete([request("a")])
    later = SpyEngine(echo)
    answers = RememberingEngine(later, Memories(bucket)).complete([request("a")])
    assert answers[0].text == "A"
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


def test_another_model_has_another_memory(store: Store) -> None:
    memories = Memories(store)
    memories.of(NAME).put({"k": "one"})
    assert memories.of(NAME | {"version": "2"}).get("k") is None
    assert memories.of(dict(NAME)).get("k") == "one"


def test_failures_are_not_remembered(store: Store) -> None:
    engine = ScriptedEngine(Failure("timeout", "too slow"), "fine")
    remembering = RememberingEngine(engine, Memories(store))
    assert remembering.complete([request("a")]) == [Failure("timeout", "too slow")]
    assert remembering.complete([request("a")])[0].text == "fine"


def test_the_first_answer_stays(store: Store) -> None:
    memory = AnswerMemory(store, NAME)
    memory.put({"k": "first"})
    memory.put({"k": "second"})
    assert memory.get("k") == "first"


def test_a_memory_that_does_not_write_leaves_no_trace(store: Store) -> None:
    memory = AnswerMemory(store, NAME, writes=False)
    memory.put({"k": "v"})
    assert memory.get("k") == "v"
    assert store.list("answers") == []


@pytest.mark.parametrize("damage", ["torn", "garbage", "empty", "other columns"])
def test_a_damaged_segment_is_counted_and_asked_again(store: Store, damage: str) -> None:
    AnswerMemory(store, NAME).put({"good": "1"})
    AnswerMemory(store, NAME).put({"bad": "2"})
    path = next(
        path
        for path in store.list("answers")
        if pq.read_table(store.location(path)).column("key")[0].as_py() == "bad"
    )
    content = store.read(path)
    strange = pa.BufferOutputStream()
    pq.write_table(pa.table({"name": ["x"]}), strange)
    replacement = {
        "torn": content[: len(content) // 2],
        "garbage": os.urandom(300),
        "empty": b"",
        "other columns": strange.getvalue().to_pybytes(),
    }[damage]
    store.write(path, replacement)

    memory = AnswerMemory(store, NAME)
    answers = memory.recall_or_ask(["good", "bad"], lambda keys: dict.fromkeys(keys, "new"))
    assert answers == {"good": "1", "bad": "new"}
    assert memory.damaged == 1


def test_a_question_in_flight_is_not_asked_again(store: Store) -> None:
    memory = AnswerMemory(store, NAME)
    asked: list[str] = []
    started = threading.Event()

    def ask(keys: Sequence[str]) -> dict[str, str]:
        asked.extend(keys)
        started.set()
        time.sleep(0.2)
        return {key: key.upper() for key in keys}

    results: list[dict[str, str]] = []
    one = threading.Thread(target=lambda: results.append(memory.recall_or_ask(["a", "b"], ask)))
    one.start()
    started.wait()
    results.append(memory.recall_or_ask(["b", "c", "a"], ask))
    one.join()
    assert sorted(asked) == ["a", "b", "c"]
    assert {key: v for found in results for key, v in found.items()} == {
        "a": "A",
        "b": "B",
        "c": "C",
    }


def test_what_another_thread_asked_in_vain_is_asked_here(store: Store) -> None:
    memory = AnswerMemory(store, NAME)
    started = threading.Event()

    def fail(_: Sequence[str]) -> dict[str, str]:
        started.set()
        time.sleep(0.1)
        raise TimeoutError

    def doomed() -> None:
        with pytest.raises(TimeoutError):
            memory.recall_or_ask(["a"], fail)

    one = threading.Thread(target=doomed)
    one.start()
    started.wait()
    assert memory.recall_or_ask(["a"], lambda keys: dict.fromkeys(keys, "x")) == {"a": "x"}
    one.join()


WRITER = """
import sys
from storage.store import Store
from tasks.llm.answers import AnswerMemory
store, name = sys.argv[1:]
memory = AnswerMemory(Store(store), {"name": "shared", "version": "1"})
for i in range(20):
    memory.put({f"{name}-{i}": name, f"common-{i}": name})
"""


def test_several_processes_write_at_once(store: Store) -> None:
    command = [sys.executable, "-c", WRITER, store.root]
    writers = [subprocess.Popen([*command, name]) for name in ("x", "y", "z")]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    memory = AnswerMemory(store, {"name": "shared", "version": "1"})
    memory.refresh()
    assert memory.damaged == 0
    assert all(memory.get(f"{name}-{i}") == name for name in "xyz" for i in range(20))
    assert all(memory.get(f"common-{i}") in "xyz" for i in range(20))


CLIENT = """
import sys, time
from pathlib import Path
from storage.store import Store
from tasks.llm.answers import Memories, RememberingEngine
from tasks.llm.chat import ChatRequest, Completion, Message

class Engine:
    fingerprint = {"name": "slow", "version": "1"}
    def complete(self, requests):
        with open(sys.argv[2], "a") as log:
            log.writelines(r.messages[0].content + "\\n" for r in requests)
        time.sleep(0.1)
        return [Completion(r.messages[0].content, "stop", 1, 1, 0.0) for r in requests]

requests = [ChatRequest((Message("user", str(i)),), 8) for i in range(400)]
answers = RememberingEngine(Engine(), Memories(Store(sys.argv[1]))).complete(requests)
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
