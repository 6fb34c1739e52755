"""One server: its requests in flight, how it wants them, and whether it is healthy."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx

from tasks.engines.llm.chat.connections import BodyError, Connections, Reply, why_unreachable
from tasks.engines.llm.chat.dialect import Dialect
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError
from tasks.engines.llm.chat.errors import (
    ErrorResponse,
    judge_error,
    plain_text,
    read_error,
    retry_after_s,
)
from tasks.engines.llm.chat.privacy import is_private, refuse_remote
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.llm.chat.wire import BadAnswerError, chat_body, error_in, read_answer
from tasks.engines.protocols import Failure

LONGEST_RETRY_AFTER_S = 120.0
"""Seconds; a server that asks for a longer wait ends the run, which can be resumed later."""

_FAILURES_BEFORE_BACKOFF = 3
"""Failures in a row; one or two happen on a healthy server under load."""

_BACKOFFS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds without new requests after the third failure in a row, the fourth, …; doubled, up to a
value that does not leave a recovered server idle for long."""

_LONGEST_QUOTE = 200
"""Characters of an unusable answer that are shown to a person."""


@dataclass(frozen=True, slots=True)
class TransientFailure:
    """An attempt that failed but may succeed when repeated.

    wait_s: the wait in seconds that the server asked for; None if it did not.
    quote: the beginning of an answer that cannot be used. It may hold text of a report, so it is
        shown only where the request had none.
    """

    reason: str
    detail: str
    wait_s: float | None = None
    quote: str = ""


class Endpoint:
    """A server at one address.

    up: whether the server has passed the capability check since it was last unreachable.
    dialect: how the server wants its requests, as far as it is known.
    not_ready_reason: why the last capability check could not finish; empty if unknown.
    why_ended: for a server that this run started: says that its process has ended, and why.
    """

    def __init__(
        self,
        base_url: str,
        settings: ServerSettings,
        api_key: str | None,
        why_ended: Callable[[], str] | None = None,
    ) -> None:
        self.base_url = base_url
        self.up = False
        self.dialect = Dialect()
        self.not_ready_reason = ""
        self.why_ended = why_ended
        self.in_flight = 0
        self._settings = settings
        self._chat_url = httpx.URL(f"{base_url}/chat/completions")  # parsed once: it takes time
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._failures = 0
        self._backs_off_until = 0.0
        if not settings.allow_remote_endpoint:
            refuse_remote(base_url)
        # A proxy from the environment must not see requests to a private network.
        uses_proxy = settings.allow_remote_endpoint and not is_private(base_url)
        self._connections = Connections(
            connect_timeout_s=settings.connect_timeout_s, uses_proxy=uses_proxy
        )

    @property
    def is_backing_off(self) -> bool:
        """Whether it failed so often in a row that other servers are preferred for a while."""
        return time.monotonic() < self._backs_off_until

    async def ask(
        self, request: ChatRequest, dialect: Dialect | None = None
    ) -> Completion | Failure | TransientFailure:
        """Send a request once and read what comes back.

        A request of which the server refuses a part is sent again without that part, and so are
        all later ones.

        Args:
            request: the conversation.
            dialect: what to try instead of the dialect that the capability check found.

        Raises:
            EngineError: if the response would be the same for every request: a wrong key, another
                model, a redirect, a very long wait.
        """
        self.in_flight += 1
        try:
            async with self._slots:
                outcome = await self._attempt(request, dialect)
        finally:
            self.in_flight -= 1
        self._note(isinstance(outcome, TransientFailure) and outcome.reason != "rate_limited")
        return outcome

    async def get(self, url: str) -> Reply:
        """Fetch a page of the server, such as its health.

        Raises:
            httpx.RequestError, TimeoutError, BodyError: if there is no answer within the connect
                time-out, or a very large one.
        """
        async with asyncio.timeout(self._settings.connect_timeout_s):
            return await self._connections.send("GET", url, self._headers)

    async def close(self) -> None:
        """Close the connections that no request is using."""
        await self._connections.close()

    async def _attempt(
        self, request: ChatRequest, tried: Dialect | None
    ) -> Completion | Failure | TransientFailure:
        while True:
            dialect = tried or self.dialect
            body = dialect.fitted(chat_body(request, self._settings, dialect.schema_field))
            started = time.perf_counter()
            reply = await self._post(json.dumps(body).encode())
            if isinstance(reply, TransientFailure):
                return reply
            outcome = _read(reply, time.perf_counter() - started)
            if not isinstance(outcome, ErrorResponse):
                return outcome
            fitting = dialect.after(outcome, body, self._settings)
            if fitting is None or fitting == dialect:
                return self._judge(outcome, reply)
            self._learn(fitting)
            tried = tried and fitting

    def _learn(self, fitting: Dialect) -> None:
        """Remember what the server refuses; the field of a schema is for the check to decide."""
        self.dialect = replace(
            self.dialect,
            completion_budget=self.dialect.completion_budget or fitting.completion_budget,
            left_out=self.dialect.left_out | fitting.left_out,
            folds_system=self.dialect.folds_system or fitting.folds_system,
        )

    async def _post(self, content: bytes) -> Reply | TransientFailure:
        try:
            async with asyncio.timeout(self._settings.answer_timeout_s):
                return await self._connections.send("POST", self._chat_url, self._headers, content)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self.up = False
            return TransientFailure("unreachable", _sentence(error))
        except TimeoutError:
            limit = self._settings.answer_timeout_s
            return TransientFailure("timeout", f"no answer within {limit:g} s")
        except BodyError as error:
            return TransientFailure("bad_answer", str(error))
        except httpx.RequestError as error:
            if why := why_unreachable(error, self.base_url):
                raise EngineError(f"{_capital(why)}.") from error
            return TransientFailure("connection_lost", _sentence(error))

    def _judge(self, error: ErrorResponse, reply: Reply) -> Failure | TransientFailure:
        said = f"{error.status} {error.message}".rstrip()
        if error.then == "stop":
            raise EngineError(f"{self.base_url} answers {said!r}: {error.say}.")
        if error.then == "fail":
            return Failure(error.reason, f"The server answers {said!r}.")
        wait_s = retry_after_s(reply.headers)
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


def _read(reply: Reply, seconds: float) -> Completion | Failure | TransientFailure | ErrorResponse:
    if reply.status != httpx.codes.OK:
        return _read_error(reply)
    try:
        body = json.loads(reply.content)
        if error := error_in(body):
            return _error_in_answer(error)
        return read_answer(body, seconds)
    except BadAnswerError as error:
        return TransientFailure("bad_answer", str(error), quote=_quote(reply.content))
    except (ValueError, RecursionError):
        kind = reply.headers.get("content-type", "").partition(";")[0] or "of no stated type"
        detail = f"the answer is not JSON but {kind}"
        return TransientFailure("bad_answer", detail, quote=_quote(reply.content))


def _read_error(reply: Reply) -> ErrorResponse:
    error = read_error(reply.status, reply.content)
    if error.reason == "redirected" and (target := reply.headers.get("location")):
        return replace(error, message=f"→ {target.partition('?')[0]}"[:_LONGEST_QUOTE])
    return error


def _error_in_answer(error: dict[str, Any]) -> ErrorResponse:
    """An error object in a 200, judged by the status that it names, or by its words."""
    code = error.get("code")
    if isinstance(code, int) and 400 <= code <= 599:
        return judge_error(code, error)
    judged = judge_error(httpx.codes.BAD_REQUEST, error)
    if judged.reason == "request_refused":  # it does not say whose fault it is
        judged = replace(judged, reason="bad_answer", then="retry")
    return replace(judged, status=httpx.codes.OK)


def _quote(content: bytes) -> str:
    return " ".join(plain_text(content).split())[:_LONGEST_QUOTE]


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
