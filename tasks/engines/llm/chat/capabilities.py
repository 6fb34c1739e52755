"""Before the first report: is the server up, does it serve the model, does it honour a schema?

A server that does not know the field that carries the schema answers 200 all the same, with
unconstrained text. The probe is a question whose every natural answer breaks the schema: the only
one allowed is a nonsense word made up on the spot, which the prompt does not mention.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import string
import time

import httpx

from tasks.engines.llm.chat.endpoint import Endpoint, Setback
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, Message
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.llm.chat.wire import SCHEMA_FIELDS, SchemaField
from tasks.engines.protocols import Failure

_POLL_S = 0.5
_BROKEN_AFTER_S = 60.0
"""A server that is healthy by its own account and answers nothing but errors is not loading."""

_NO_HEALTH_PAGE = {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.UNAUTHORIZED}


async def shake_hands(endpoint: Endpoint, settings: ServerSettings, constrained: bool) -> None:
    """Wait until the server is up, then check its model and, if asked, its constraint.

    Waits for as long as it takes; the caller sets the bound. What keeps the server from being
    ready is left in `endpoint.trouble`.

    Raises:
        EngineError: if the server is up but cannot do the work.
    """
    errors_since: float | None = None
    while True:
        while not await _is_healthy(endpoint):
            await asyncio.sleep(_POLL_S)
        await _check_model(endpoint, settings.model)
        if not constrained:
            return
        found = await _find_schema_field(endpoint, settings.retries)
        if not isinstance(found, Setback):
            endpoint.schema_field = found
            return
        endpoint.trouble = found.detail
        if found.reason != "server_error":
            errors_since = None
        elif errors_since is None:
            errors_since = time.monotonic()
        elif time.monotonic() - errors_since > _BROKEN_AFTER_S:
            raise EngineError(
                f"{endpoint.base_url} answers every request with an error ({found.detail}): see "
                "its log, and run again; what was answered so far is kept."
            )
        await asyncio.sleep(_POLL_S)


async def _find_schema_field(endpoint: Endpoint, retries: int) -> SchemaField | Setback:
    """The first way of carrying a schema that really constrains the answer.

    A setback, if the server went down meanwhile or only says that it is busy: a full queue tells
    nothing of schemas.

    Raises:
        EngineError: if none does.
    """
    seen: list[str] = []
    setbacks: list[Setback] = []
    for field in SCHEMA_FIELDS:
        word = "".join(secrets.choice(string.ascii_lowercase) for _ in range(10))
        outcome = await _ask_patiently(endpoint, _probe(word), field, retries)
        if isinstance(outcome, Completion) and _follows(outcome.text, word):
            return field
        if isinstance(outcome, Setback):
            if outcome.reason == "unreachable":
                return outcome
            setbacks.append(outcome)
        seen.append(f"{field}: {_shown(outcome)}")
    if len(setbacks) == len(seen):
        return setbacks[-1]
    raise EngineError(
        f"{endpoint.base_url} does not hold its answers to a JSON schema, whichever way it is "
        f"sent ({'; '.join(seen)}): serve the model with vLLM, SGLang or llama.cpp, or choose "
        "the protocol `inline`, which needs no schema."
    )


async def _is_healthy(endpoint: Endpoint) -> bool:
    """`/health` tells whether weights are loaded; servers without it list their models."""
    root = endpoint.base_url.removesuffix("/v1")
    try:
        response = await endpoint.get(f"{root}/health")
        if response.status_code in _NO_HEALTH_PAGE:
            response = await endpoint.get(f"{endpoint.base_url}/models")
    except (httpx.RequestError, TimeoutError):
        return False
    return response.status_code < httpx.codes.INTERNAL_SERVER_ERROR


async def _check_model(endpoint: Endpoint, model: str) -> None:
    """llama.cpp answers with whatever it has loaded, under any name that it is asked for."""
    try:
        response = await endpoint.get(f"{endpoint.base_url}/models")
        served = [entry["id"] for entry in response.json()["data"]]
    except (httpx.RequestError, TimeoutError, ValueError, RecursionError, KeyError, TypeError):
        return  # no list to check against: the first request tells
    if served and model not in served:
        raise EngineError(
            f"{endpoint.base_url} serves {', '.join(map(str, served))}, not {model}: "
            "set `model` to a name that it lists."
        )


def _probe(word: str) -> ChatRequest:
    question = "What is the capital of France? Answer with one word."
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": [word]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    return ChatRequest((Message("user", question),), max_tokens=128, schema=schema)


async def _ask_patiently(
    endpoint: Endpoint, request: ChatRequest, field: SchemaField, retries: int
) -> Completion | Failure | Setback:
    outcome = await endpoint.ask(request, field)
    for attempt in range(retries):
        if not isinstance(outcome, Setback):
            break
        await asyncio.sleep(outcome.wait_s if outcome.wait_s is not None else 0.1 * 2**attempt)
        outcome = await endpoint.ask(request, field)
    return outcome


def _follows(text: str, word: str) -> bool:
    try:
        return bool(json.loads(text) == {"answer": word})
    except (ValueError, RecursionError):
        return False


def _shown(outcome: Completion | Failure | Setback) -> str:
    return f"it wrote {outcome.text[:40]!r}" if isinstance(outcome, Completion) else outcome.detail
