"""What an error response of a server means: retry, fail the request, or stop the run.

Servers shape their errors differently: OpenAI, vLLM and llama-server wrap an object in `error`
(`code` is a string, a number or null), SGLang has the same fields flat, vLLM's key check gives a
plain string, FastAPI a `detail` that is a string or a list. All are reduced to status, code, type
and message; the rules of `server_errors.yaml` decide what follows.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, field_validator

from tasks.engines.llm.chat.wire import storable

_LONGEST_PAGE = 20_000
"""Bytes of a page that are read for its title."""

_HTML = re.compile(r"<!doctype html|<html|<head|<body", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]{1,200})", re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")
_LONGEST_MESSAGE = 500
"""Characters; servers may quote a whole prompt, and a report must not end up in a log."""


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """A response whose status is not 200.

    reason: its reason code; then: `retry`, `fail` or `stop`.
    message: the server's message, truncated.
    say: for `stop`, what the user should know or do.
    parameter: the part of the request that the server names as the cause; empty if none.
    """

    status: int
    reason: str
    then: Literal["retry", "fail", "stop"]
    message: str
    say: str = ""
    parameter: str = ""


class _ErrorRule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: str
    status: list[tuple[int, int]]
    code: list[str] = []
    text: list[str] = []
    then: Literal["retry", "fail", "stop"]
    say: str = ""

    @field_validator("status", mode="before")
    @classmethod
    def _ranges(cls, values: list[int | str]) -> list[tuple[int, int]]:
        ends = [str(value).split("-") for value in values]
        return [(int(end[0]), int(end[-1])) for end in ends]

    def matches(self, status: int, codes: set[str], message: str) -> bool:
        """Whether the response meets all conditions of the rule; `message` is in lower case."""
        return (
            any(low <= status <= high for low, high in self.status)
            and (not self.code or not codes.isdisjoint(self.code))
            and (not self.text or any(text in message for text in self.text))
        )


def read_error(status: int, content: bytes) -> ErrorResponse:
    """Read a response whose status is not 200, whatever the shape of its body."""
    return judge_error(status, _fields(content))


def judge_error(status: int, fields: Mapping[str, Any]) -> ErrorResponse:
    """What an error with these fields means."""
    message = storable(" ".join(_words(fields, "message").split()))[:_LONGEST_MESSAGE]
    codes = {str(fields[key]) for key in ("code", "type") if fields.get(key)}
    parameter = str(fields.get("param") or "")
    lowered = message.lower()
    for rule in _rules():
        if rule.matches(status, codes, lowered):
            return ErrorResponse(status, rule.reason, rule.then, message, rule.say, parameter)
    return ErrorResponse(status, "bad_answer", "retry", message, parameter=parameter)


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The wait that a server asks for, in seconds; None when it names none that can be read.

    `Retry-After` is a number of seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    with suppress(ValueError):
        return max(0.0, float(value))
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


@cache
def _rules() -> tuple[_ErrorRule, ...]:
    raw = yaml.safe_load(Path(__file__).with_name("server_errors.yaml").read_text())
    return tuple(_ErrorRule.model_validate(rule) for rule in raw["rules"])


def _fields(content: bytes) -> dict[str, Any]:
    """The error's fields, whatever they are wrapped in."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {"message": plain_text(content)}
    inner = body.get("error", body.get("detail", body)) if isinstance(body, dict) else body
    return inner if isinstance(inner, dict) else {"message": inner}


def plain_text(content: bytes) -> str:
    """The words of a page: its title if it is HTML with one, else its text without tags."""
    page = content[:_LONGEST_PAGE].decode(errors="replace")
    if not _HTML.search(page):
        return page
    if title := _TITLE.search(page):
        return f"a web page, {html.unescape(title[1]).strip()!r}"
    return "a web page: " + html.unescape(_TAG.sub(" ", page))


def _words(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
