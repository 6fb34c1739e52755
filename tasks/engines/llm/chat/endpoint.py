"""One server: its connections, how much it has in hand, and whether it is fit for work."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

import httpx

from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError
from tasks.engines.llm.chat.errors import read_refusal, retry_after_s
from tasks.engines.llm.chat.privacy import is_near, refuse_remote
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.llm.chat.wire import BadAnswerError, SchemaField, chat_body, read_answer
from tasks.engines.protocols import Failure

LONGEST_RETRY_AFTER_S = 120.0
"""A server that asks for a longer wait ends the run, to be resumed when it has time again."""

_FAILURES_BEFORE_REST = 3
_RESTS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


@dataclass(frozen=True, slots=True)
class Setback:
    """An attempt that failed and may go well when it is made again.

    wait_s: the wait that the server asked for, if it did.
    """

    reason: str
    detail: str
    wait_s: float | None = None


class Endpoint:
    """A server at one address.

    Every request in flight has a client of its own with a single connection: one pool for all
    makes httpx search all its connections for each request, which costs more than the request.

    up: whether the server was reached and passed its handshake since it was last seen down.
    schema_field: how it takes a schema, once a probe has shown that it honours it.
    trouble: what it said at its handshake instead of being ready, if it said anything.
    """

    def __init__(self, base_url: str, settings: ServerSettings, api_key: str | None) -> None:
        self.base_url = base_url
        self.up = False
        self.schema_field: SchemaField | None = None
        self.trouble = ""
        self.in_flight = 0
        self._settings = settings
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._idle: list[httpx.AsyncClient] = []
        self._failures = 0
        self._rests_until = 0.0
        if not settings.allow_remote_endpoint:
            refuse_remote(base_url)
        # A proxy from the environment must not see what is meant for this machine's network.
        self._uses_proxy = settings.allow_remote_endpoint and not is_near(base_url)
        self._tls = httpx.create_ssl_context()

    @property
    def rests(self) -> bool:
        """Whether it failed so often in a row that another server should be preferred."""
        return time.monotonic() < self._rests_until

    async def ask(
        self, request: ChatRequest, field: SchemaField | None = None
    ) -> Completion | Failure | Setback:
        """Send a request once and read what comes back.

        Args:
            request: the conversation.
            field: how the server takes a schema; the one that its handshake found by default.

        Raises:
            EngineError: if what the server says holds for every request: a wrong key, another
                model, a redirect, a wait of hours.
        """
        body = chat_body(request, self._settings, field or self.schema_field)
        self.in_flight += 1
        try:
            async with self._slots:
                outcome = await self._attempt(json.dumps(body).encode())
        finally:
            self.in_flight -= 1
        self._note(isinstance(outcome, Setback) and outcome.reason != "rate_limited")
        return outcome

    async def get(self, url: str) -> httpx.Response:
        """Fetch a page of the server, such as its health.

        Raises:
            httpx.RequestError, TimeoutError: if there is no answer within the connect time-out.
        """
        client = self._take_client()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                return await client.get(url, headers=self._headers)
        finally:
            self._idle.append(client)

    async def close(self) -> None:
        """Close the connections that no request is using."""
        while self._idle:
            await self._idle.pop().aclose()

    async def _attempt(self, content: bytes) -> Completion | Failure | Setback:
        client = self._take_client()
        url = f"{self.base_url}/chat/completions"
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.answer_timeout_s):
                response = await client.post(url, content=content, headers=self._headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self.up = False
            return Setback("unreachable", _sentence(error))
        except TimeoutError:
            limit = self._settings.answer_timeout_s
            return Setback("timeout", f"no answer within {limit:g} s")
        except httpx.RequestError as error:
            return Setback("connection_lost", _sentence(error))
        finally:
            self._idle.append(client)
        return self._read(response, time.perf_counter() - started)

    def _read(self, response: httpx.Response, seconds: float) -> Completion | Failure | Setback:
        if response.status_code != httpx.codes.OK:
            return self._refused(response)
        try:
            return read_answer(json.loads(response.content), seconds)
        except BadAnswerError as error:
            return Setback("bad_answer", str(error))
        except (ValueError, RecursionError):
            return Setback("bad_answer", "the answer is not JSON")

    def _refused(self, response: httpx.Response) -> Failure | Setback:
        refusal = read_refusal(response.status_code, response.content)
        said = f"{refusal.status} {refusal.message}".rstrip()
        if refusal.then == "stop":
            raise EngineError(f"{self.base_url} answers {said!r}: {refusal.say}.")
        if refusal.then == "fail":
            return Failure(refusal.reason, f"The server answers {said!r}.")
        wait_s = retry_after_s(response.headers)
        if wait_s is not None and wait_s > LONGEST_RETRY_AFTER_S:
            raise EngineError(
                f"{self.base_url} answers {said!r} and asks for a wait of {wait_s:.0f} s: "
                "run again after that; what was answered so far is kept."
            )
        return Setback(refusal.reason, said, wait_s)

    def _note(self, failed: bool) -> None:
        """Rest a server whose answers keep failing, for longer each time, until one succeeds."""
        self._failures = self._failures + 1 if failed else 0
        further = self._failures - _FAILURES_BEFORE_REST
        rest_s = 0.0 if further < 0 else _RESTS_S[min(further, len(_RESTS_S) - 1)]
        self._rests_until = time.monotonic() + rest_s

    def _take_client(self) -> httpx.AsyncClient:
        if self._idle:
            return self._idle.pop()
        timeout = httpx.Timeout(None, connect=self._settings.connect_timeout_s)
        return httpx.AsyncClient(verify=self._tls, timeout=timeout, trust_env=self._uses_proxy)


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__
