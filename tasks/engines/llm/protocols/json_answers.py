"""Reads answers that must be JSON of a given shape, and says in a sentence what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from tasks.engines.llm.chat.wire import unfenced
from tasks.engines.llm.protocols.batched_requests import AnswerError

T = TypeVar("T")

_SPARE_TOKENS = 64
"""Tokens of an answer without its text: the JSON object and its keys."""


def read_json(shape: TypeAdapter[T], text: str) -> T:
    """The value of an answer; a code fence around it is allowed, anything else is not.

    Raises:
        AnswerError: if it is not JSON, has another shape, or gives a key twice.
    """
    body = unfenced(text)
    try:
        value = shape.validate_json(body, strict=True)
        json.loads(body, object_pairs_hook=_require_distinct)  # pydantic takes the last of equals
        return value
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = " > ".join(map(str, first["loc"]))
        raise AnswerError(f"{first['msg']}{f' (at {where})' if where else ''}") from None


def _require_distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise AnswerError(f"the key {twice!r} is given more than once")
    return dict(pairs)


def require_numbers(answered: Mapping[str, Any], count: int) -> None:
    """Check that an answer names only sentences 1 to `count`.

    Raises:
        AnswerError: if it does not.
    """
    valid = set(map(str, range(1, count + 1)))
    if strange := [number for number in answered if number not in valid]:
        raise AnswerError(f"there is no sentence {strange[0]!r}: they are numbered 1 to {count}")


def answer_bound(data: str, share: int = 2) -> int:
    """Upper bound of the tokens of an answer: `share` times those of the data, and a few.

    English report text has about four characters per token.
    """
    return _SPARE_TOKENS + share * len(data) // 4


def closed_object(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """JSON schema of an object with these properties, all optional, and no other."""
    return {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
        **more,
    }


def numbered_object(count: int, value: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """JSON schema of an object with at most one value for each number from 1 to `count`."""
    reference = {"$ref": "#/$defs/value"}
    properties = {str(i): reference for i in range(1, count + 1)}
    return closed_object(properties, **{"$defs": {"value": dict(value)}}, **more)


def bounded_tuples(*items: Mapping[str, Any], most: int) -> dict[str, Any]:
    """JSON schema of an array of at most `most` arrays, each of just these items in order."""
    one = {
        "type": "array",
        "prefixItems": [dict(item) for item in items],
        "minItems": len(items),
        "maxItems": len(items),
    }
    return {"type": "array", "items": one, "maxItems": most}
