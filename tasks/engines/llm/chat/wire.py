"""The HTTP bodies of chat completions: a request written, an answer read.

The OpenAI chat completions interface as vLLM, SGLang, llama.cpp and llama-cpp-python speak it.
They differ in the field that takes a JSON schema; a server that does not know the field it gets
ignores it and answers 200 with free text, so the capability check tries them out.
"""

from __future__ import annotations

import re
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


_THOUGHT = "think|thinking|thought|reasoning|seed:think"
_BRACKETED = {
    r"\[THINK\]": r"\[/THINK\]",  # Magistral
    r"<\|channel>thought": r"<channel\|>",  # Gemma
    "<unused94>thought": "<unused95>",  # MedGemma
    r"<\|START_THINKING\|>": r"<\|END_THINKING\|>",  # Command
    r"<\|begin_of_thought\|>": r"<\|end_of_thought\|>",
}
_THOUGHTS = re.compile(
    rf"(\s*(<({_THOUGHT})>.*?(</\3>|\Z)|"
    + "|".join(rf"{opened}.*?({closed}|\Z)" for opened, closed in _BRACKETED.items())
    + r"))+\s*",
    re.DOTALL | re.IGNORECASE,
)
"""Reasoning in front of an answer, as DeepSeek, Qwen, Magistral and others write it; an unclosed
one was cut, and no answer follows."""

_CLOSED_THOUGHT = re.compile(rf"</({_THOUGHT})>|{'|'.join(_BRACKETED.values())}", re.IGNORECASE)
"""The end of a reasoning whose beginning is part of the chat template, as DeepSeek-R1's is."""

_ENVELOPE = re.compile(r"\s*<\|START_RESPONSE\|>|<\|END_RESPONSE\|>\s*")

_CHANNEL = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>")
_FINAL_CHANNEL = re.compile(
    r"<\|channel\|>final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(.*?)(?:<\|(?:end|return)\|>|\Z)",
    re.DOTALL,
)
"""The answer among the channels of the harmony format, gpt-oss's; without one it was cut."""

_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL | re.I | re.M)

THINKING_ADVICE = (
    "allow more tokens with `thinking_tokens`, for example 4096, or switch the reasoning off, for "
    "many models with `chat_template_kwargs: {enable_thinking: false}`"
)
"""What to set for a model that reasons first."""

_MOST_TOKENS = 100_000_000
"""Tokens of one request; more than any model's context, and far from an integer's limits."""

_WHOLE = {"", "eos", "eos_token", "end_turn", "stop_sequence", "STOP"}
"""What other servers call the end of a whole answer; some send null."""


class BadAnswerError(ValueError):
    """A body that is not a chat completion; the message says what is missing, and what to set."""


def chat_body(
    request: ChatRequest, sampling: Sampling, field: SchemaField | None
) -> dict[str, Any]:
    """The JSON body of one request, with every sampling parameter that is set.

    Args:
        request: the conversation.
        sampling: model and sampling parameters.
        field: the field that carries a schema on this server; used if the request has one.
    """
    body: dict[str, Any] = {
        "model": sampling.model,
        "messages": [message._asdict() for message in request.messages],
        "max_tokens": request.max_tokens + sampling.thinking_tokens,
    }
    for name in ("temperature", "top_p", "seed"):
        if (value := getattr(sampling, name)) is not None:
            body[name] = value
    if sampling.chat_template_kwargs:
        body["chat_template_kwargs"] = dict(sampling.chat_template_kwargs)
    if request.schema is not None and field is not None:
        body |= SCHEMA_FIELDS[field](request.schema)
    return body


def error_in(body: object) -> dict[str, Any] | None:
    """The error object of a body that should be an answer; some gateways send it with a 200."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    for holder in (body, first):
        error = holder.get("error") if isinstance(holder, dict) else None
        if error:
            return error if isinstance(error, dict) else {"message": str(error)}
    is_flat = body.get("object") == "error" and "message" in body
    return body if is_flat else None


def read_answer(body: object, seconds: float) -> Completion | Failure:
    """Read the body of a 200 answer; a refusal by the model or a content filter is a failure.

    Reasoning in front of the answer is left out. Token counts are 0 when a server reports none, or
    none that can be true.

    Raises:
        BadAnswerError: if the body is not a chat completion, an aborted one, or one without an
            answer.
    """
    choice = _only_choice(body)
    reason = choice.get("finish_reason")
    message = choice.get("message")
    if not isinstance(message, dict):
        raise BadAnswerError("the answer has no message")
    if reason is not None and not isinstance(reason, str):
        raise BadAnswerError("the answer's finish_reason is not text")
    if reason is None or reason in _WHOLE:
        reason = "stop"
    if reason in {"abort", "error"}:
        raise BadAnswerError(f"the server aborted the answer ({reason})")
    if reason == "content_filter" or message.get("refusal"):
        why = storable(str(message.get("refusal") or reason))
        return Failure("refused", f"The model refused to answer: {why}")
    content = _text(message.get("content"))
    if not content and (why := _why_no_content(message, reason)):
        raise BadAnswerError(why)
    if content is None:
        raise BadAnswerError("the answer has no content")
    tokens_in, tokens_out = _usage(body)
    text = storable(without_thoughts(content))
    return Completion(text, reason, tokens_in, tokens_out, seconds)


def without_thoughts(text: str) -> str:
    """The answer without the reasoning in front of it: `<think>…</think>` and its kin."""
    if _CHANNEL.match(text):
        finals = _FINAL_CHANNEL.findall(text)
        return str(finals[-1]).strip() if finals else ""
    if thoughts := _THOUGHTS.match(text):
        return _ENVELOPE.sub("", text[thoughts.end() :])
    if closed := _CLOSED_THOUGHT.search(text):
        return _ENVELOPE.sub("", text[closed.end() :]).lstrip()
    return text


def unfenced(text: str) -> str:
    """The content of the Markdown code fence that holds the JSON of an answer; else the text.

    Where a model explains itself around fences, the last one is its answer.
    """
    if fenced := _FENCED.fullmatch(text):
        return fenced[1]
    if text.lstrip().startswith(("{", "[")):
        return text
    fences = _FENCE.findall(text)
    return str(fences[-1]) if fences else text


def storable(text: str) -> str:
    """The text with `?` for unpaired surrogates, which JSON can hold but UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _text(content: object) -> str | None:
    """The text of a message's content, which may come in parts; None if it holds none."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [_text_of_part(part) for part in parts]
    found = [text for text in texts if text is not None]
    return "".join(found) if found else None


def _text_of_part(part: object) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type") not in {"text", "output_text"}:
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


def _why_no_content(message: Mapping[str, Any], reason: str) -> str:
    """What a message without content holds instead, and what to set; empty if nothing is known."""
    if message.get("tool_calls") or message.get("function_call"):
        return (
            "the model calls a tool instead of answering: start the server without its options "
            "for tool calls (vLLM: --enable-auto-tool-choice, --tool-call-parser)"
        )
    if any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking")):
        return (
            f"the model only reasons and gives no answer (finish_reason {reason}): "
            f"{THINKING_ADVICE}"
        )
    return ""


def _only_choice(body: object) -> dict[str, Any]:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadAnswerError("the answer has no choices")
    return choices[0]


def _usage(body: object) -> tuple[int, int]:
    usage = body.get("usage") if isinstance(body, dict) else None
    counts = usage if isinstance(usage, dict) else {}
    return _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))


def _count(value: object) -> int:
    """A count of tokens; 0, unknown, for anything that cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_TOKENS:
        return 0
    return value
