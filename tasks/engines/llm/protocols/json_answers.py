"""Reads answers that must be JSON of a given shape, and says in a sentence what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from tasks.engines.llm.protocols.batched_requests import AnswerError

T = TypeVar("T")

_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)
_SPARE_TOKENS = 64
"""Tokens of an answer without its text: the JSON object and its keys."""


def read_json(shape: TypeAdapter[T], text: str) -> T:
    """The value of an answer; a code fence around it is allowed, anything else is not.

    Raises:
        AnswerError: if it is not JSON or has another shape.
    """
    fenced = _FENCED.fullmatch(text)
    try:
        return shape.validate_json(fenced[1] if fenced else text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = " > ".join(map(str, first["loc"]))
        raise AnswerError(f"{first['msg']}{f' (at {where})' if where else ''}") from None


def require_numbers(answered: Mapping[str, Any], count: int) -> None:
    """Check that an answer names only sentences 1 to `count`.

    Raises:
        AnswerError: if it does not.
    """
    valid = set(map(str, range(1, count + 1)))
    if strange := [number for number in answered if number not in valid]:
        raise AnswerError(f"there is no sentence {strange[0]!r}: they are numbered 1 to {count}")


def answer_bound(data: str) -> int:
    """Upper bound of the tokens of an answer about some data: twice those of its text, and a few.

    English report text has about four characters per token.
    """
    return _SPARE_TOKENS + len(data) // 2


def closed_object(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """JSON schema of an object with these properties, all optional, and no other."""
    return {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
        **more,
    }
