"""The HTTP bodies of chat completions: a request written, an answer read.

The OpenAI chat completions interface as vLLM, SGLang, llama.cpp and llama-cpp-python speak it.
They differ in the field that takes a JSON schema; a server that does not know the field it gets
ignores it and answers 200 with free text, so the capability check tries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from tasks.engines.llm.chat.engine import ChatRequest, Completion
from tasks.engines.llm.chat.settings import Sampling
from tasks.engines.protocols import Failure

Schema = Mapping[str, Any]
SchemaField = Literal[
    "json_schema", "json_object", "structured_outputs", "guided_json", "top_level"
]

SCHEMA_FIELDS: dict[SchemaField, Callable[[Schema], dict[str, Any]]] = {
    # OpenAI, vLLM, SGLang, llama-server
    "json_schema": lambda schema: {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        }
    },
    # llama-cpp-python, older llama-server
    "json_object": lambda schema: {"response_format": {"type": "json_object", "schema": schema}},
    # vLLM from 0.11
    "structured_outputs": lambda schema: {"structured_outputs": {"json": schema}},
    # vLLM up to 0.11
    "guided_json": lambda schema: {"guided_json": schema},
    # llama-server's own
    "top_level": lambda schema: {"json_schema": schema},
}
"""The fields that can carry a schema, in the order in which they are tried."""


class BadAnswerError(ValueError):
    """A body that is not a chat completion; the message says what is missing."""


def chat_body(
    request: ChatRequest, sampling: Sampling, field: SchemaField | None
) -> dict[str, Any]:
    """The JSON body of one request, with every sampling parameter.

    Args:
        request: the conversation.
        sampling: model and sampling parameters.
        field: the field that carries a schema on this server; used if the request has one.
    """
    body: dict[str, Any] = {
        "model": sampling.model,
        "messages": [message._asdict() for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    if request.schema is not None and field is not None:
        body |= SCHEMA_FIELDS[field](request.schema)
    return body


def read_answer(body: object, seconds: float) -> Completion | Failure:
    """Read the body of a 200 answer; a refusal by the model or a content filter is a failure.

    Token counts are 0 when a server reports none.

    Raises:
        BadAnswerError: if the body is not a chat completion, or an aborted one.
    """
    choice = _only_choice(body)
    reason = choice.get("finish_reason")
    message = choice.get("message")
    if not isinstance(message, dict) or not isinstance(reason, str):
        raise BadAnswerError("the answer has no message or no finish_reason")
    if reason in {"abort", "error"}:
        raise BadAnswerError(f"the server aborted the answer ({reason})")
    if reason == "content_filter" or message.get("refusal"):
        why = storable(str(message.get("refusal") or reason))
        return Failure("refused", f"The model refused to answer: {why}")
    if not isinstance(message.get("content"), str):
        raise BadAnswerError("the answer has no content")
    tokens_in, tokens_out = _usage(body)
    return Completion(storable(message["content"]), reason, tokens_in, tokens_out, seconds)


def storable(text: str) -> str:
    """The text with `?` for unpaired surrogates, which JSON can hold but UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _only_choice(body: object) -> dict[str, Any]:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadAnswerError("the answer has no choices")
    return choices[0]


def _usage(body: object) -> tuple[int, int]:
    usage = body.get("usage") if isinstance(body, dict) else None
    counts = usage if isinstance(usage, dict) else {}
    tokens_in, tokens_out = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return (
        tokens_in if isinstance(tokens_in, int) else 0,
        tokens_out if isinstance(tokens_out, int) else 0,
    )
