"""The response cache: a request that a model has answered is not sent again.

Answers are stored below `answers/<owner>/`, in segments that several processes may add to at once
(`segments`). An answer is identified by a digest of everything that decides it, so it serves every
data set, run and restart. Each chunk of requests is written before the next one is sent, so a
process that is killed loses one chunk.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

import pyarrow as pa

from storage.store import Store
from tasks.engines.llm.cache.segments import Segments
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest, Completion, EngineWrapper
from tasks.engines.llm.digest import digest
from tasks.engines.metering import consume
from tasks.engines.protocols import Failure, Fingerprint

RequestAnswers = Callable[[Sequence[str]], Mapping[str, str]]
"""Requests the answers of some keys; a key that is missing from the result has none."""

_FOLDER = "answers"
"""The cache's folder in the store; renaming it would lose the answers of existing stores."""

_FIRST_CHUNK = 16
"""Requests; small, so that a run that is killed early loses little."""

_FAST_CHUNK_S = 30.0
"""Seconds; the chunk after a faster one is twice as large. A 70B model under load takes about 20 s
for 16 requests and about the same for 256, so small chunks would waste its capacity."""

_SLOW_CHUNK_S = 120.0
"""Seconds; the chunk after a slower one is half as large, since a killed run loses a chunk."""


def is_json(answer: str) -> bool:
    """Whether an answer is JSON, as every cached answer is."""
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return True


class ResponseCache:
    """Answers of one owner by key, each JSON; safe for concurrent threads and processes."""

    def __init__(
        self,
        store: Store,
        owner: Fingerprint,
        *,
        writes: bool = True,
        keeps_failures: bool = False,
    ) -> None:
        """A cache of the answers that a fingerprint decides.

        Args:
            store: where the answers are.
            owner: the fingerprint.
            writes: whether new answers are stored; else they are kept in this process only.
            keeps_failures: whether those who request answers are to keep final failures, too.
        """
        self.keeps_failures = keeps_failures
        self._segments = Segments(store, f"{_FOLDER}/{digest(dict(owner))}")
        self._writes = writes
        self._lock = threading.Lock()
        self._found: dict[str, tuple[pa.ChunkedArray, int]] = {}
        self._discarded: set[str] = set()
        self._pending: dict[str, threading.Event] = {}
        self._size = 0

    def get(self, key: str, is_valid: Callable[[str], bool] = is_json) -> str | None:
        """The answer under a key, as far as `refresh` has seen.

        An invalid one is discarded, and counted as `cache_damaged`.
        """
        if (found := self._found.get(key)) is None:
            return None
        answers, row = found
        answer = str(answers[row].as_py())
        if is_valid(answer):
            return answer
        self._found.pop(key, None)
        consume(cache_damaged=1)
        return None

    def has(self, key: str) -> bool:
        """Whether there is an answer under a key, valid or not, as far as `refresh` has seen."""
        return key in self._found

    def put(self, answers: Mapping[str, str]) -> None:
        """Store answers as one segment; a key that already has an answer keeps it.

        Raises:
            StoreError: if the store cannot be written.
        """
        if not answers:
            return
        if self._writes:
            self._segments.append(answers)
        self._discarded.difference_update(answers)
        self._add(list(answers), pa.chunked_array([list(answers.values())], pa.large_string()))

    def discard(self, keys: Collection[str]) -> None:
        """Invalidate answers that turned out to be unusable, for other processes too.

        Raises:
            StoreError: if the store cannot be written.
        """
        if keys:
            if self._writes:
                self._segments.append(dict.fromkeys(keys))
            self._drop(keys)

    def refresh(self) -> None:
        """Read the segments added since the last call, by any process.

        Raises:
            StoreError: if the store cannot be listed, read or written.
        """
        for table in self._segments.new_tables():
            answers = table.column("answer")
            self._add(table.column("key").to_pylist(), answers)
        if self._writes:
            self._segments.merge()

    def get_or_request(
        self,
        keys: Sequence[str],
        request: RequestAnswers,
        first: int = _FIRST_CHUNK,
        is_valid: Callable[[str], bool] = is_json,
    ) -> dict[str, str]:
        """The answers of some keys; those that are not cached are requested in chunks and stored.

        A key that another thread is requesting is waited for. Chunks grow from `first` keys while
        they are answered fast. A cached answer that `is_valid` rejects is requested again.
        """
        self.refresh()
        waiting = dict.fromkeys(keys)
        while waiting:
            own, others = self._claim([key for key in waiting if self.get(key, is_valid) is None])
            try:
                for chunk in self._chunks(own, first):
                    self.put(request(chunk))
            finally:
                self._release(own)
            for event in others.values():
                event.wait()
            # A key that another thread got no answer for is requested here in the next turn.
            waiting = {key: None for key in others if key not in self._found}
        return {key: answer for key in keys if (answer := self.get(key)) is not None}

    def _chunks(self, keys: list[str], smallest: int) -> Iterator[list[str]]:
        """Chunks of keys, sized by how long the ones before took, also in earlier calls."""
        start = 0
        while start < len(keys):
            size = max(smallest, self._size)
            began = time.monotonic()
            yield keys[start : start + size]
            seconds = time.monotonic() - began
            start += size
            if seconds < _FAST_CHUNK_S and size <= len(keys):
                self._size = 2 * size
            elif seconds > _SLOW_CHUNK_S:
                self._size = size // 2

    def _claim(self, keys: list[str]) -> tuple[list[str], dict[str, threading.Event]]:
        """The keys that this thread is to request, and the events of those being requested."""
        own: list[str] = []
        others: dict[str, threading.Event] = {}
        with self._lock:
            for key in keys:
                if key in self._found:
                    continue
                if key in self._pending:
                    others[key] = self._pending[key]
                else:
                    self._pending[key] = threading.Event()
                    own.append(key)
        return own, others

    def _release(self, keys: list[str]) -> None:
        with self._lock:
            for key in keys:
                self._pending.pop(key).set()

    def _add(self, keys: Iterable[str | None], answers: pa.ChunkedArray) -> None:
        nulls = {i for i, valid in enumerate(answers.is_valid().to_pylist()) if not valid}
        invalidated: set[str] = set()
        with self._lock:
            for row, key in enumerate(keys):
                if key is None:
                    continue
                if row in nulls:
                    invalidated.add(key)
                elif key not in self._discarded:
                    self._found.setdefault(key, (answers, row))
        self._drop(invalidated)

    def _drop(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._discarded.add(key)
                self._found.pop(key, None)


class ResponseCaches:
    """The response caches of a store, one per owner, shared by all engines of a process."""

    def __init__(self, store: Store, *, writes: bool = True, keeps_failures: bool = False) -> None:
        self._store = store
        self._how = {"writes": writes, "keeps_failures": keeps_failures}
        self._lock = threading.Lock()
        self._by_owner: dict[str, ResponseCache] = {}

    def for_owner(self, owner: Fingerprint) -> ResponseCache:
        """The cache of the answers that a fingerprint decides."""
        with self._lock:
            name = digest(dict(owner))
            if name not in self._by_owner:
                self._by_owner[name] = ResponseCache(self._store, owner, **self._how)
            return self._by_owner[name]


class CachedEngine(EngineWrapper[ChatEngine]):
    """A chat engine that sends another engine only the requests that are not cached.

    Failures are not cached. Requests answered from the cache are counted as `cache_hits`.
    """

    def __init__(self, engine: ChatEngine, caches: ResponseCaches) -> None:
        super().__init__(engine)
        self._cache = caches.for_owner(engine.fingerprint)

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Failure]:
        """One answer per request, order kept; equal requests are sent once."""
        keys = [digest(asdict(request)) for request in requests]
        by_key = dict(zip(keys, requests, strict=True))
        failures: dict[str, Failure] = {}
        sent: set[str] = set()

        def send(chunk: Sequence[str]) -> dict[str, str]:
            sent.update(chunk)
            answers: dict[str, str] = {}
            completions = self._engine.complete([by_key[key] for key in chunk])
            for key, completion in zip(chunk, completions, strict=True):
                if isinstance(completion, Failure):
                    failures[key] = completion
                else:
                    answers[key] = json.dumps(asdict(completion), ensure_ascii=False)
            return answers

        known = self._cache.get_or_request(keys, send, is_valid=_is_completion)
        consume(cache_hits=len(keys) - len(sent))
        return [
            Completion(**json.loads(known[key])) if key in known else failures[key] for key in keys
        ]

    def discard(self, requests: Sequence[ChatRequest]) -> None:
        """Discard the cached answers of some requests, which turned out to be unusable."""
        self._cache.discard({digest(asdict(request)) for request in requests})


def _is_completion(answer: str) -> bool:
    try:
        return isinstance(Completion(**json.loads(answer)).text, str)
    except (TypeError, ValueError, RecursionError):
        return False
