"""One server: its connections, its requests in flight, and whether it is healthy."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

import httpx

from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError
from tasks.engines.llm.chat.errors import read_error, retry_after_s
from tasks.engines.llm.chat.privacy import is_private, refuse_remote
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.llm.chat.wire import BadAnswerError, SchemaField, chat_body, read_answer
from tasks.engines.protocols import Failure

LONGEST_RETRY_AFTER_S = 120.0
"""Seconds; a server that asks for a longer wait ends the run, which can be resumed later."""

_FAILURES_BEFORE_BACKOFF = 3
"""Failures in a row; one or two happen on a healthy server under load."""

_BACKOFFS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds without new requests after the third failure in a row, the fourth, …; doubled, up to a
value that does not leave a recovered server idle for long."""


@dataclass(frozen=True, slots=True)
class TransientFailure:
    """An attempt that failed but may succeed when repeated.

    wait_s: the wait in seconds that the server asked for; None if it did not.
    """

    reason: str
    detail: str
    wait_s: float | None = None


class Endpoint:
    """A server at one address.

    Every request in flight has its own client with one connection: in a shared pool, httpx searches
    all connections for each request, which takes longer than the request itself.

    up: whether the server has passed the capability check since it was last unreachable.
    schema_field: the field that carries a schema, once a probe has shown that it is enforced.
    not_ready_reason: why the last capability check could not finish; empty if unknown.
    """

    def __init__(self, base_url: str, settings: ServerSettings, api_key: str | None) -> None:
        self.base_url = base_url
        self.up = False
        self.schema_field: SchemaField | None = None
        self.not_ready_reason = ""
        self.in_flight = 0
        self._settings = settings
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._idle: list[httpx.AsyncClient] = []
        self._failures = 0
        self._backs_off_until = 0.0
        if not settings.allow_remote_endpoint:
            refuse_remote(base_url)
        # A proxy from the environment must not see requests to a private network.
        self._uses_proxy = settings.allow_remote_endpoint and not is_private(base_url)
        self._tls = httpx.create_ssl_context()

    @property
    def is_backing_off(self) -> bool:
        """Whether it failed so often in a row that other servers are preferred for a while."""
        return time.monotonic() < self._backs_off_until

    async def ask(
        self, request: ChatRequest, field: SchemaField | None = None
    ) -> Completion | Failure | TransientFailure:
        """Send a request once and read what comes back.

        Args:
            request: the conversation.
            field: the field that carries a schema; by default the one that the capability check
                found.

        Raises:
            EngineError: if the response would be the same for every request: a wrong key, another
                model, a redirect, a very long wait.
        """
        body = chat_body(request, self._settings, field or self.schema_field)
        self.in_flight += 1
        try:
            async with self._slots:
                outcome = await self._attempt(json.dumps(body).encode())
        finally:
            self.in_flight -= 1
        self._note(isinstance(outcome, TransientFailure) and outcome.reason != "rate_limited")
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

    async def _attempt(self, content: bytes) -> Completion | Failure | TransientFailure:
        client = self._take_client()
        url = f"{self.base_url}/chat/completions"
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.answer_timeout_s):
                response = await client.post(url, content=content, headers=self._headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self.up = False
            return TransientFailure("unreachable", _sentence(error))
        except TimeoutError:
            limit = self._settings.answer_timeout_s
            return TransientFailure("timeout", f"no answer within {limit:g} s")
        except httpx.RequestError as error:
            return TransientFailure("connection_lost", _sentence(error))
        finally:
            self._idle.append(client)
        return self._read(response, time.perf_counter() - started)

    def _read(
        self, response: httpx.Response, seconds: float
    ) -> Completion | Failure | TransientFailure:
        if response.status_code != httpx.codes.OK:
            return self._read_error(response)
        try:
            return read_answer(json.loads(response.content), seconds)
        except BadAnswerError as error:
            return TransientFailure("bad_answer", str(error))
        except (ValueError, RecursionError):
            return TransientFailure("bad_answer", "the answer is not JSON")

    def _read_error(self, response: httpx.Response) -> Failure | TransientFailure:
        error = read_error(response.status_code, response.content)
        said = f"{error.status} {error.message}".rstrip()
        if error.then == "stop":
            raise EngineError(f"{self.base_url} answers {said!r}: {error.say}.")
        if error.then == "fail":
            return Failure(error.reason, f"The server answers {said!r}.")
        wait_s = retry_after_s(response.headers)
        if wait_s is not None and wait_s > LONGEST_RETRY_AFTER_S:
            raise EngineError(
                f"{self.base_url} answers {said!r} and asks for a wait of {wait_s:.0f} s: "
                "run again after that; what was answered so far is kept."
            )
        return TransientFailure(error.reason, said, wait_s)

    def _note(self, failed: bool) -> None:
        """Back off from a server that keeps failing, longer each time, until a request succeeds."""
        self._failures = self._failures + 1 if failed else 0
        further = self._failures - _FAILURES_BEFORE_BACKOFF
        backoff_s = 0.0 if further < 0 else _BACKOFFS_S[min(further, len(_BACKOFFS_S) - 1)]
        self._backs_off_until = time.monotonic() + backoff_s

    def _take_client(self) -> httpx.AsyncClient:
        if self._idle:
            return self._idle.pop()
        timeout = httpx.Timeout(None, connect=self._settings.connect_timeout_s)
        return httpx.AsyncClient(verify=self._tls, timeout=timeout, trust_env=self._uses_proxy)


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__
