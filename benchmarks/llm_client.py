"""Overhead of the client of LLM servers: requests per second and memory, on one core.

A local server on another core answers every request immediately, so that all time is the client's.
Two paths are measured: the engine alone, and the path of a build through the response cache, which
writes each chunk to the store before the next request, in calls with the requests of one shard. The
usual alternative, one httpx client and `asyncio.gather` under a semaphore, runs on the same
requests, and so does OpenAI's own client where it is installed (`pip install openai`). Each runs in
a new process.

OpenAI's client is slower, which is why there is one of ours: in runs on two busy cores it made 98
to 142 requests a CPU second (version 3.57.0; one client or many, 32 to 256 at once), and in one of
them the gathered httpx made 108 and this engine 383.

Latencies are counted by `tasks.engines.metering`, not by hdrhistogram (0.10.8), which is no faster:
1.7 µs a value with two digits, ours 1.8, of the 2.6 ms that a request takes. Its quantiles are
within 1 % instead of 12 %. But the amounts of a manifest are whole numbers that SQL adds up over
shards, and its histogram is a coded text that only it can add (6.2 ms for 100 shards, ours 0.9). It
also needs pbr and setuptools at run time.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import NamedTuple, overload

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.targets import judge
from storage.store import Store
from tasks.engines.llm.cache.response_cache import CachedEngine, ResponseCaches
from tasks.engines.llm.chat.engine import ChatRequest, Completion, Message
from tasks.engines.llm.chat.openai_server import OpenAIServerEngine
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.llm.chat.timed import MeteredEngine
from tasks.engines.llm.chat.wire import chat_body
from tasks.engines.protocols import Failure

REQUESTS = 50_000
CACHED_REQUESTS = 10_000
REQUESTS_PER_CALL = 250
GATHER_REQUESTS = 5_000
"""`asyncio.gather` is slower; a tenth of the requests measures its speed."""
CONCURRENCY = 256
ENGINE, CACHED = "openai engine", "with response cache"

INSTRUCTIONS = "Name the findings that the report states, each with its sentence. " * 45
REPORT = "The heart size is normal. There is a small left pleural effusion. No pneumothorax. " * 7
SCHEMA = {"type": "array", "items": {"enum": [f"target number {n}" for n in range(300)]}}


class Measured(NamedTuple):
    """One client's run.

    peak_mb: peak resident memory after a fifth of the requests (where measured) and at the end;
    answers_mb: the memory of the answers.
    cpu_seconds: of the client; on a busy machine they are more reliable than the wall time.
    """

    requests: int
    seconds: float
    cpu_seconds: float
    peak_mb: Sequence[float]
    answers_mb: float

    @property
    def growth_mb(self) -> float:
        """Growth of the peak over the last four fifths of the requests, without their answers."""
        first, last = self.peak_mb
        return last - first - 0.8 * self.answers_mb  # the answers of four fifths

    def row(self) -> list[str]:
        """Cells for the table."""
        memory = " → ".join(f"{mb:.0f}" for mb in self.peak_mb)
        rate = f"{self.requests / self.seconds:,.0f}"
        cpu_ms = f"{1000 * self.cpu_seconds / self.requests:.2f}"
        return [f"{self.requests:,}", rate, cpu_ms, memory, f"{self.answers_mb:.1f}"]


def main() -> int:
    """Measure all and print the table; 1 if a target is missed."""
    fresh = ProcessPoolExecutor(
        max_workers=1, mp_context=get_context("spawn"), max_tasks_per_child=1
    )
    runs: list[tuple[str, Callable[[str], Measured]]] = [
        (ENGINE, _engine),
        (CACHED, _cached),
        ("httpx, gather, semaphore", _gather),
    ]
    if find_spec("openai"):
        runs.append(("openai SDK", _openai_sdk))
    table = Table(
        title=f"Client overhead: {CONCURRENCY} in flight, client on one core", title_justify="left"
    )
    columns = ("client", "requests", "requests/s", "CPU ms each", "peak MB", "answers MB")
    for name in columns:
        table.add_column(name, justify="left" if name == "client" else "right")
    measured: dict[str, Measured] = {}
    with _instant_server() as base_url, fresh:
        for name, run in runs:
            measured[name] = fresh.submit(run, base_url).result()
            table.add_row(name, *measured[name].row())
    Console().print(table)
    figures: dict[str, float] = {}
    for name in (ENGINE, CACHED):
        cpu_seconds = measured[name].cpu_seconds
        figures[f"{name}, requests a CPU second"] = measured[name].requests / cpu_seconds
        figures[f"{name}, MB of growth"] = measured[name].growth_mb
    return judge("llm_client", figures)


class _Reports(Sequence[ChatRequest]):
    """Requests that are made on access, so that the measured memory is the client's."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.peak_mb: list[float] = []

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ChatRequest: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ChatRequest]: ...
    def __getitem__(self, index: int | slice) -> ChatRequest | Sequence[ChatRequest]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        if index == self._count // 5:
            self.peak_mb.append(_peak_mb())
        messages = (Message("system", INSTRUCTIONS), Message("user", f"{index}. {REPORT}"))
        return ChatRequest(messages, 256, SCHEMA)


def _engine(base_url: str) -> Measured:
    _stay_on(0)
    engine = OpenAIServerEngine(_settings(base_url))
    engine.complete([_Reports(1)[0]])  # the capability check
    reports = _Reports(REQUESTS)
    started, cpu_started = time.perf_counter(), time.process_time()
    answers = engine.complete(reports)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    assert sum(isinstance(answer, Completion) for answer in answers) == REQUESTS
    peak_mb = [*reports.peak_mb, _peak_mb()]
    return Measured(REQUESTS, seconds, cpu_seconds, peak_mb, sum(map(_size_mb, answers)))


def _cached(base_url: str) -> Measured:
    _stay_on(0)
    reports = _Reports(CACHED_REQUESTS)
    with tempfile.TemporaryDirectory() as folder:
        caches = ResponseCaches(Store(folder))
        engine = MeteredEngine(OpenAIServerEngine(_settings(base_url)))
        engine.complete([_Reports(1)[0]])  # the capability check
        cached = CachedEngine(engine, caches)
        started, cpu_started = time.perf_counter(), time.process_time()
        answered, answers_mb = 0, 0.0
        for first in range(0, CACHED_REQUESTS, REQUESTS_PER_CALL):
            answers = cached.complete(reports[first : first + REQUESTS_PER_CALL])
            answered += sum(isinstance(answer, Completion) for answer in answers)
            answers_mb += sum(map(_size_mb, answers))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    assert answered == CACHED_REQUESTS
    peak_mb = [*reports.peak_mb, _peak_mb()]
    return Measured(CACHED_REQUESTS, seconds, cpu_seconds, peak_mb, answers_mb)


def _gather(base_url: str) -> Measured:
    _stay_on(0)
    settings = _settings(base_url)

    async def run() -> None:
        slots = asyncio.Semaphore(CONCURRENCY)
        limits = httpx.Limits(max_connections=CONCURRENCY)
        async with httpx.AsyncClient(limits=limits, timeout=600) as client:

            async def ask(request: ChatRequest) -> None:
                async with slots:
                    body = chat_body(request, settings, "json_schema")
                    answer = await client.post(f"{base_url}/chat/completions", json=body)
                    assert answer.json()["choices"]

            await asyncio.gather(*map(ask, _Reports(GATHER_REQUESTS)))

    started, cpu_started = time.perf_counter(), time.process_time()
    asyncio.run(run())
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return Measured(GATHER_REQUESTS, seconds, cpu_seconds, [_peak_mb()], 0.0)


def _openai_sdk(base_url: str) -> Measured:
    from openai import AsyncOpenAI

    _stay_on(0)
    settings = _settings(base_url)

    async def run() -> None:
        slots = asyncio.Semaphore(CONCURRENCY)
        async with AsyncOpenAI(base_url=base_url, api_key="none", timeout=600) as client:

            async def ask(request: ChatRequest) -> None:
                async with slots:
                    body = chat_body(request, settings, "json_schema")
                    answer = await client.chat.completions.create(**body)
                    assert answer.choices

            await asyncio.gather(*map(ask, _Reports(GATHER_REQUESTS)))

    started, cpu_started = time.perf_counter(), time.process_time()
    asyncio.run(run())
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return Measured(GATHER_REQUESTS, seconds, cpu_seconds, [_peak_mb()], 0.0)


def _settings(base_url: str) -> ServerSettings:
    return ServerSettings(base_urls=(base_url,), model="instant", max_concurrency=CONCURRENCY)


def _size_mb(answer: Completion | Failure) -> float:
    values = [getattr(answer, field.name) for field in fields(answer)]
    return sum(map(sys.getsizeof, [answer, *values])) / 2**20


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _stay_on(core: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


class _InstantAnswers(asyncio.Protocol):
    """A minimal HTTP server; the schema of a request determines its answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n") + 4) > 3:
            head = self._received[:end].lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(self._received) < end + length:
                return
            body = self._received[end : end + length]
            self._received = self._received[end + length :]
            self._transport.write(_answer(head, body))


def _answer(head: bytes, body: bytes) -> bytes:
    if head.startswith(b"get"):
        content = b'{"data": []}'
    elif len(body) < 1_000:  # the capability check's probe
        schema = json.loads(body)["response_format"]["json_schema"]["schema"]
        content = _completion(json.dumps({"answer": schema["properties"]["answer"]["enum"][0]}))
    else:
        content = _FINDINGS
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content


def _completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920}
    return json.dumps({"id": "c", "model": "instant", "choices": [choice], "usage": usage}).encode()


_FINDINGS = _completion('["target number 7", "target number 121"]')


def _serve(ready: Connection) -> None:
    _stay_on(1)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_InstantAnswers, "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def _instant_server() -> Iterator[str]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.terminate()


if __name__ == "__main__":
    sys.exit(main())
