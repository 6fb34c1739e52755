"""The memory of answers: what a model has said once is not asked again.

Answers are kept in the store, below `answers/<owner>/`, in segments that several processes may add
to at once (`segments`). What identifies an answer is a digest of everything that decides it, so it
serves every dataset, run and restart. Each chunk of questions is written before the next one is
asked, so that a process that is killed loses the chunk it was at.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from storage.store import Store
from tasks.engines.llm.cache.segments import Segments
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest, Completion
from tasks.engines.metering import consume
from tasks.engines.protocols import Failure, Fingerprint

Ask = Callable[[Sequence[str]], Mapping[str, str]]
"""Answers the questions behind some keys; a key left out could not be answered."""

_FIRST_CHUNK = 16
_BRISK_SECONDS = 30.0
_SLOW_SECONDS = 120.0
"""A chunk twice as large follows one that was brisk: a busy 70B model takes 20 s for 16 requests
as for 256, and what is killed loses one chunk."""


def digest(*values: Any) -> str:
    """A short name for JSON values: equal values, equal name; 128 bits of BLAKE2."""
    content = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def is_json(answer: str) -> bool:
    """Whether an answer is JSON, as all that is kept is written."""
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return True


class AnswerMemory:
    """Answers of one owner by key, each JSON; safe between threads and between processes."""

    def __init__(self, store: Store, owner: Fingerprint, *, writes: bool = True) -> None:
        """A memory that does not write forgets at its end what it has been told."""
        self._segments = Segments(store, f"answers/{digest(dict(owner))}")
        self._writes = writes
        self._lock = threading.Lock()
        self._found: dict[str, tuple[pa.ChunkedArray, int]] = {}
        self._forgotten: set[str] = set()
        self._asked: dict[str, threading.Event] = {}
        self._size = 0

    def get(self, key: str, is_sound: Callable[[str], bool] = is_json) -> str | None:
        """The answer under a key, as far as `refresh` has seen.

        One that is not sound is forgotten, and counted as `memory_damaged`.
        """
        if (found := self._found.get(key)) is None:
            return None
        answers, row = found
        answer = str(answers[row].as_py())
        if is_sound(answer):
            return answer
        self._found.pop(key, None)
        consume(memory_damaged=1)
        return None

    def put(self, answers: Mapping[str, str]) -> None:
        """Keep answers as one segment; where a key has an answer, the first one stays.

        Raises:
            StoreError: if the store cannot be written.
        """
        if not answers:
            return
        if self._writes:
            self._segments.append(answers)
        self._forgotten.difference_update(answers)
        self._add(list(answers), pa.chunked_array([list(answers.values())], pa.large_string()))

    def forget(self, keys: Collection[str]) -> None:
        """Take answers back that turned out to be of no use; other processes follow.

        Raises:
            StoreError: if the store cannot be written.
        """
        if keys:
            if self._writes:
                self._segments.append(dict.fromkeys(keys))
            self._drop(keys)

    def refresh(self) -> None:
        """Read the segments that have come since the last time, by whichever process.

        Raises:
            StoreError: if the store cannot be listed, read or written.
        """
        for table in self._segments.news():
            answers = table.column("answer")
            self._add(table.column("key").to_pylist(), answers)
        if self._writes:
            self._segments.merge()

    def recall_or_ask(
        self,
        keys: Sequence[str],
        ask: Ask,
        first: int = _FIRST_CHUNK,
        is_sound: Callable[[str], bool] = is_json,
    ) -> dict[str, str]:
        """The answers to some questions, the unknown ones asked in chunks and kept at once.

        A question that another thread is asking is waited for. Chunks grow from `first` as long
        as they are answered briskly: a chunk is what a killed process loses. An answer from the
        memory that is not sound is asked for again.
        """
        self.refresh()
        waiting = dict.fromkeys(keys)
        while waiting:
            mine, theirs = self._claim([key for key in waiting if self.get(key, is_sound) is None])
            try:
                for chunk in self._paced(mine, first):
                    self.put(ask(chunk))
            finally:
                self._release(mine)
            for event in theirs.values():
                event.wait()
            # What another thread was asking in vain is claimed in the next turn.
            waiting = {key: None for key in theirs if key not in self._found}
        return {key: answer for key in keys if (answer := self.get(key)) is not None}

    def _paced(self, keys: list[str], smallest: int) -> Iterator[list[str]]:
        """Chunks of keys, each sized by how long those before took, in earlier calls too."""
        start = 0
        while start < len(keys):
            size = max(smallest, self._size)
            began = time.monotonic()
            yield keys[start : start + size]
            seconds = time.monotonic() - began
            start += size
            if seconds < _BRISK_SECONDS and size <= len(keys):
                self._size = 2 * size
            elif seconds > _SLOW_SECONDS:
                self._size = size // 2

    def _claim(self, keys: list[str]) -> tuple[list[str], dict[str, threading.Event]]:
        mine: list[str] = []
        theirs: dict[str, threading.Event] = {}
        with self._lock:
            for key in keys:
                if key in self._found:
                    continue
                if key in self._asked:
                    theirs[key] = self._asked[key]
                else:
                    self._asked[key] = threading.Event()
                    mine.append(key)
        return mine, theirs

    def _release(self, keys: list[str]) -> None:
        with self._lock:
            for key in keys:
                self._asked.pop(key).set()

    def _add(self, keys: Iterable[str | None], answers: pa.ChunkedArray) -> None:
        gone = {i for i, valid in enumerate(answers.is_valid().to_pylist()) if not valid}
        forgotten: set[str] = set()
        with self._lock:
            for row, key in enumerate(keys):
                if key is None:
                    continue
                if row in gone:
                    forgotten.add(key)
                elif key not in self._forgotten:
                    self._found.setdefault(key, (answers, row))
        self._drop(forgotten)

    def _drop(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._forgotten.add(key)
                self._found.pop(key, None)


class Memories:
    """The memories of a store, one per owner, shared by all engines of a process."""

    def __init__(self, store: Store, *, writes: bool = True) -> None:
        self._store = store
        self._writes = writes
        self._lock = threading.Lock()
        self._of: dict[str, AnswerMemory] = {}

    def of(self, owner: Fingerprint) -> AnswerMemory:
        """The memory of what an owner, named by its fingerprint, has answered."""
        with self._lock:
            name = digest(dict(owner))
            if name not in self._of:
                self._of[name] = AnswerMemory(self._store, owner, writes=self._writes)
            return self._of[name]


class RememberingEngine:
    """A chat engine that asks another one only what nobody has asked it before.

    Failures are not remembered. Requests answered from memory are counted as `cache_hits`.
    """

    def __init__(self, engine: ChatEngine, memories: Memories) -> None:
        self._engine = engine
        self._memory = memories.of(engine.fingerprint)

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the engine behind: remembering changes no answer."""
        return self._engine.fingerprint

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Failure]:
        """One answer per request, order kept; equal requests are asked once."""
        keys = [digest(asdict(request)) for request in requests]
        by_key = dict(zip(keys, requests, strict=True))
        failures: dict[str, Failure] = {}
        asked: set[str] = set()

        def ask(chunk: Sequence[str]) -> dict[str, str]:
            asked.update(chunk)
            answers: dict[str, str] = {}
            completions = self._engine.complete([by_key[key] for key in chunk])
            for key, completion in zip(chunk, completions, strict=True):
                if isinstance(completion, Failure):
                    failures[key] = completion
                else:
                    answers[key] = json.dumps(asdict(completion), ensure_ascii=False)
            return answers

        known = self._memory.recall_or_ask(keys, ask, is_sound=_is_completion)
        consume(cache_hits=len(keys) - len(asked))
        return [
            Completion(**json.loads(known[key])) if key in known else failures[key] for key in keys
        ]

    def forget(self, requests: Sequence[ChatRequest]) -> None:
        """Answers that turned out to be of no use: asked again, they are put to the model anew."""
        self._memory.forget({digest(asdict(request)) for request in requests})


def _is_completion(answer: str) -> bool:
    try:
        return isinstance(Completion(**json.loads(answer)).text, str)
    except (TypeError, ValueError, RecursionError):
        return False
