"""The capability check before the first report: server up, model served, JSON schema enforced.

A server that does not know the field that carries the schema still answers 200, with unconstrained
text. So the check asks a question whose natural answers all violate the schema: the only value that
the schema allows is a random word that the prompt does not mention.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import string
import time

import httpx

from tasks.engines.llm.chat.endpoint import Endpoint, TransientFailure
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, Message
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.llm.chat.wire import SCHEMA_FIELDS, SchemaField
from tasks.engines.protocols import Failure

_POLL_S = 0.5
"""Seconds between two looks at a server that is not up yet."""

_BROKEN_AFTER_S = 60.0
"""Seconds; a server that reports itself healthy but fails for so long is not loading weights."""

_FIRST_RETRY_S = 0.1
"""Seconds before the first retry of a probe; doubled for each further one."""

_PROBE_MAX_TOKENS = 128
"""Enough for the JSON object of the probe, and for a short unconstrained answer."""

_NO_HEALTH_PAGE = {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.UNAUTHORIZED}


async def check_capabilities(
    endpoint: Endpoint, settings: ServerSettings, constrained: bool
) -> None:
    """Wait until the server is up, then check its model and, if `constrained`, schema support.

    Waits without limit; the caller sets one. Why the server is not ready yet is noted in
    `endpoint.not_ready_reason`.

    Raises:
        EngineError: if the server is up but cannot be used.
    """
    errors_since: float | None = None
    while True:
        while not await _is_healthy(endpoint):
            await asyncio.sleep(_POLL_S)
        await _check_model(endpoint, settings.model)
        if not constrained:
            return
        found = await _find_schema_field(endpoint, settings.retries)
        if not isinstance(found, TransientFailure):
            endpoint.schema_field = found
            return
        endpoint.not_ready_reason = found.detail
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


async def _find_schema_field(endpoint: Endpoint, retries: int) -> SchemaField | TransientFailure:
    """The first schema field that constrains the answer.

    A transient failure if the server went down meanwhile, or was busy for every field: then it
    is unknown which fields it supports.

    Raises:
        EngineError: if no field does.
    """
    seen: list[str] = []
    transient: list[TransientFailure] = []
    for field in SCHEMA_FIELDS:
        word = "".join(secrets.choice(string.ascii_lowercase) for _ in range(10))
        outcome = await _ask_with_retries(endpoint, _probe(word), field, retries)
        if isinstance(outcome, Completion) and _follows(outcome.text, word):
            return field
        if isinstance(outcome, TransientFailure):
            if outcome.reason == "unreachable":
                return outcome
            transient.append(outcome)
        seen.append(f"{field}: {_shown(outcome)}")
    if len(transient) == len(seen):
        return transient[-1]
    raise EngineError(
        f"{endpoint.base_url} does not constrain its answers to a JSON schema in any field "
        f"tried ({'; '.join(seen)}): serve the model with vLLM, SGLang or llama.cpp, or choose "
        "the protocol `inline`, which needs no schema."
    )


async def _is_healthy(endpoint: Endpoint) -> bool:
    """`/health` succeeds once weights are loaded; servers without it list their models."""
    root = endpoint.base_url.removesuffix("/v1")
    try:
        response = await endpoint.get(f"{root}/health")
        if response.status_code in _NO_HEALTH_PAGE:
            response = await endpoint.get(f"{endpoint.base_url}/models")
    except (httpx.RequestError, TimeoutError):
        return False
    return response.status_code < httpx.codes.INTERNAL_SERVER_ERROR


async def _check_model(endpoint: Endpoint, model: str) -> None:
    """Compare the model's name: llama.cpp answers with whatever model it has loaded."""
    try:
        response = await endpoint.get(f"{endpoint.base_url}/models")
        served = [entry["id"] for entry in response.json()["data"]]
    except (httpx.RequestError, TimeoutError, ValueError, RecursionError, KeyError, TypeError):
        return  # no list: the first request shows whether the model is served
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
    return ChatRequest((Message("user", question),), max_tokens=_PROBE_MAX_TOKENS, schema=schema)


async def _ask_with_retries(
    endpoint: Endpoint, request: ChatRequest, field: SchemaField, retries: int
) -> Completion | Failure | TransientFailure:
    outcome = await endpoint.ask(request, field)
    for attempt in range(retries):
        if not isinstance(outcome, TransientFailure):
            break
        await asyncio.sleep(
            outcome.wait_s if outcome.wait_s is not None else _FIRST_RETRY_S * 2**attempt
        )
        outcome = await endpoint.ask(request, field)
    return outcome


def _follows(text: str, word: str) -> bool:
    try:
        return bool(json.loads(text) == {"answer": word})
    except (ValueError, RecursionError):
        return False


def _shown(outcome: Completion | Failure | TransientFailure) -> str:
    return f"it wrote {outcome.text[:40]!r}" if isinstance(outcome, Completion) else outcome.detail
