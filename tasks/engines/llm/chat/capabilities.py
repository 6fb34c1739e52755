"""The capability check before the first report: server up, model served, JSON schema enforced.

A server that does not know the field that carries the schema still answers 200, with unconstrained
text. So the check asks a question whose natural answers all violate the schema: the only value that
the schema allows is a random word that the prompt does not mention. The question has a system turn,
as the requests of all protocols do, so that a chat template without that role is noticed here.

A server that is down, loading or busy is waited for. One that answers, but in a way that no request
could use, is reported at once, with its own words.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import string
import time
from dataclasses import replace
from difflib import get_close_matches

import httpx

from tasks.engines.llm.chat.connections import BodyError, why_unreachable
from tasks.engines.llm.chat.dialect import Dialect
from tasks.engines.llm.chat.endpoint import Endpoint, TransientFailure
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, Message
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.llm.chat.wire import (
    SCHEMA_FIELDS,
    THINKING_ADVICE,
    SchemaField,
    unfenced,
)
from tasks.engines.protocols import Failure

_POLL_S = 0.5
"""Seconds between two looks at a server that is not up yet."""

_BROKEN_AFTER_S = 40.0
"""Seconds; a server that reports itself healthy but fails for so long is not loading weights. With
the last attempts, a person is told within a minute."""

_BROKEN = {"server_error", "connection_lost"}
"""Failures of a broken server; a busy or slow one is waited for."""

_FIRST_RETRY_S = 0.1
"""Seconds before the first retry of a probe; doubled for each further one."""

_LONGEST_PAUSE_S = 5.0
"""Seconds between two attempts at a probe, whatever the server asks for."""

_PROBE_MAX_TOKENS = 128
"""Enough for the JSON object of the probe, and for a short unconstrained answer."""

_NAMES_SHOWN = 8
"""Models of a server that are listed; a gateway may serve hundreds."""

_NO_HEALTH_PAGE = {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.UNAUTHORIZED}
_WAITS = ("server_error", "rate_limited", "timeout", "connection_lost")


async def check_capabilities(
    endpoint: Endpoint, settings: ServerSettings, constrained: bool
) -> None:
    """Wait until the server is up, then check its model and, if `constrained`, schema support.

    Waits without limit; the caller sets one. Why the server is not ready yet is noted in
    `endpoint.not_ready_reason`.

    Raises:
        EngineError: if the server is up but cannot be used, or its process has ended.
    """
    endpoint.dialect = Dialect()  # another server may have its address now
    failing_since: float | None = None
    while True:
        await _wait_until_healthy(endpoint)
        await _check_model(endpoint, settings.model)
        if not constrained:
            return
        endpoint.not_ready_reason = endpoint.not_ready_reason or "no answer to a question yet"
        since = failing_since or time.monotonic()
        give_up = since + _BROKEN_AFTER_S
        found = await _find_schema_field(endpoint, settings.retries, give_up)
        if not isinstance(found, TransientFailure):
            endpoint.dialect = replace(endpoint.dialect, schema_field=found)
            return
        endpoint.not_ready_reason = found.detail
        failing_since = since if found.reason in _BROKEN else None
        if failing_since is not None and time.monotonic() >= give_up:
            raise EngineError(
                f"{endpoint.base_url} answers its check with errors only ({found.detail}): see "
                "its log, and run again; what was answered so far is kept."
            )
        await asyncio.sleep(_POLL_S)


async def _find_schema_field(
    endpoint: Endpoint, retries: int, give_up: float
) -> SchemaField | TransientFailure:
    """The first schema field that constrains the answer.

    A transient failure if the server went down meanwhile, or was busy for some field: then it is
    unknown which fields it supports. After `give_up`, of the monotonic clock, a broken server is
    asked no more.

    Raises:
        EngineError: if no field does, or if no answer can be used.
    """
    seen: list[str] = []
    thought = 0
    transient: list[TransientFailure] = []
    for field in SCHEMA_FIELDS:
        word = "".join(secrets.choice(string.ascii_lowercase) for _ in range(10))
        outcome = await _ask_with_retries(endpoint, _probe(word), field, retries, give_up)
        if isinstance(outcome, Completion) and _follows(outcome.text, word):
            return field
        if isinstance(outcome, TransientFailure):
            if outcome.reason == "unreachable" or _is_over(outcome, give_up):
                return outcome
            transient.append(outcome)
        elif isinstance(outcome, Completion) and outcome.finish_reason == "length":
            thought += not outcome.text.strip()
        seen.append(f"{field}: {_shown(outcome)}")
    if waiting := [failure for failure in transient if failure.reason in _WAITS]:
        # It may support the fields that it failed at.
        detail = waiting[-1].detail if len(transient) == len(seen) else "; ".join(seen)
        return replace(waiting[-1], detail=detail)
    if len(transient) == len(seen):
        raise EngineError(_unusable(endpoint, transient[0]))
    if thought:
        raise EngineError(
            f"{endpoint.base_url} is up, but its model only reasons, and is cut off before it "
            f"answers: {THINKING_ADVICE}."
        )
    raise EngineError(
        f"{endpoint.base_url} does not constrain its answers to a JSON schema in any field "
        f"tried ({'; '.join(seen)}): serve the model with vLLM, SGLang or llama.cpp, or choose "
        "the protocol `inline`, which needs no schema."
    )


def _unusable(endpoint: Endpoint, failure: TransientFailure) -> str:
    quote = f" It sent: {failure.quote}" if failure.quote else ""
    return (
        f"{endpoint.base_url} is up, but no answer of it can be used: "
        f"{failure.detail.rstrip('.')}.{quote}"
    )


async def _wait_until_healthy(endpoint: Endpoint) -> None:
    closing_since: float | None = None
    while True:
        try:
            if await _is_healthy(endpoint):
                return
            closing_since = None
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            # A container's port is open before its server is, so this may pass.
            closing_since = closing_since or time.monotonic()
            if time.monotonic() - closing_since > _BROKEN_AFTER_S:
                raise EngineError(
                    f"{endpoint.base_url} takes connections but closes them without an answer "
                    f"({error}): if it expects TLS, its address begins with https://; else see "
                    "its log."
                ) from error
        await asyncio.sleep(_POLL_S)


async def _is_healthy(endpoint: Endpoint) -> bool:
    """`/health` succeeds once weights are loaded; servers without it list their models.

    Raises:
        EngineError: if waiting cannot help: TLS at the wrong end, a process that has ended.
        httpx.RequestError: if the connection is closed without an answer.
    """
    root = endpoint.base_url.removesuffix("/v1")
    try:
        reply = await endpoint.get(f"{root}/health")
        if reply.status in _NO_HEALTH_PAGE:
            reply = await endpoint.get(f"{endpoint.base_url}/models")
    except BodyError:
        return True  # it answers; the checks that follow say what is wrong
    except (httpx.RequestError, TimeoutError) as error:
        if endpoint.why_ended and (why := endpoint.why_ended()):
            raise EngineError(why) from error
        if why := why_unreachable(error, endpoint.base_url):
            raise EngineError(f"{why[:1].upper()}{why[1:]}.") from error
        if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
            raise
        if isinstance(error, TimeoutError):
            endpoint.not_ready_reason = "its health page does not answer"
        return False
    if reply.status >= httpx.codes.INTERNAL_SERVER_ERROR:
        endpoint.not_ready_reason = f"its health page answers {reply.status}"
        return False
    return True


async def _check_model(endpoint: Endpoint, model: str) -> None:
    """Compare the model's name: llama.cpp answers with whatever model it has loaded."""
    served = await _models(endpoint, endpoint.base_url)
    if served is None:
        if not endpoint.base_url.endswith("/v1"):
            nested = f"{endpoint.base_url}/v1"
            if await _models(endpoint, nested) is not None:
                raise EngineError(
                    f"There is no model server at {endpoint.base_url}, but one at {nested}: "
                    "give that address in `base_urls`."
                )
        return  # no list: the first request shows whether the model is served
    if served and model not in served:
        near = get_close_matches(model, served, 1)
        others = f" and {len(served) - _NAMES_SHOWN} more" if len(served) > _NAMES_SHOWN else ""
        meant = f" (perhaps {near[0]})" if near else ""
        raise EngineError(
            f"{endpoint.base_url} serves {', '.join(served[:_NAMES_SHOWN])}{others}, not {model}: "
            f"set `model` to a name that it lists{meant}."
        )


async def _models(endpoint: Endpoint, base_url: str) -> list[str] | None:
    """The names of the models that a server lists; None if there is no list."""
    try:
        reply = await endpoint.get(f"{base_url}/models")
        return [str(entry["id"]) for entry in json.loads(reply.content)["data"]]
    except (httpx.RequestError, BodyError, TimeoutError):
        return None
    except (ValueError, RecursionError, KeyError, TypeError):
        return None


def _probe(word: str) -> ChatRequest:
    turns = (
        Message("system", "You answer questions in one word."),
        Message("user", "What is the capital of France?"),
    )
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": [word]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    return ChatRequest(turns, max_tokens=_PROBE_MAX_TOKENS, schema=schema)


async def _ask_with_retries(
    endpoint: Endpoint, request: ChatRequest, field: SchemaField, retries: int, give_up: float
) -> Completion | Failure | TransientFailure:
    outcome = await endpoint.ask(request, replace(endpoint.dialect, schema_field=field))
    for attempt in range(retries):
        if not isinstance(outcome, TransientFailure) or outcome.reason == "unreachable":
            break
        if outcome.reason == "bad_answer" and attempt:
            break  # it repeats: the server's way of answering, not an accident
        if _is_over(outcome, give_up):
            break
        pause_s = outcome.wait_s if outcome.wait_s is not None else _FIRST_RETRY_S * 2**attempt
        await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))
        outcome = await endpoint.ask(request, replace(endpoint.dialect, schema_field=field))
    return outcome


def _is_over(failure: TransientFailure, give_up: float) -> bool:
    return failure.reason in _BROKEN and time.monotonic() >= give_up


def _follows(text: str, word: str) -> bool:
    try:
        return bool(json.loads(unfenced(text)) == {"answer": word})
    except (ValueError, RecursionError):
        return False


def _shown(outcome: Completion | Failure | TransientFailure) -> str:
    return f"it wrote {outcome.text[:40]!r}" if isinstance(outcome, Completion) else outcome.detail
