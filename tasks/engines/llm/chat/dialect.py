"""What one server takes: which field carries a schema, which parameters and roles it refuses.

Servers refuse parts of the OpenAI interface with an error that names the part. A refused part is
left out or replaced where that cannot change an answer, and the request is sent again; where it
would change answers, the user has to decide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.engines.llm.chat.engine import EngineError, Message
from tasks.engines.llm.chat.errors import ErrorResponse
from tasks.engines.llm.chat.settings import Sampling
from tasks.engines.llm.chat.wire import SchemaField

_NO_SYSTEM_ROLE = re.compile(
    r"system role (is )?(not|un)\s?supported|does not support (a |the )?system (role|message)"
    r"|only user and assistant roles|roles must alternate user/assistant"
    r"|system messages? (is|are) not (supported|allowed)"
    r"|(unknown|unexpected|invalid) role:? .?system",
    re.IGNORECASE,
)
"""Words of chat templates that raise an error at a system turn: Gemma's and Mistral's, and others
of the kind. They come as 400, or as 500 from servers that take a template's error as their own."""

_REFUSED = re.compile(
    r"unsupported|not supported|does ?n.t support|does not support|not permitted|not allowed"
    r"|unrecognized|unrecognised|unknown|unexpected|extra inputs|extra fields|use .max_completion",
    re.IGNORECASE,
)
_PARAMETERS = ("max_tokens", "temperature", "top_p", "seed", "chat_template_kwargs")
_REFUSAL_STATUSES = {200, 400, 404, 422, 500, 501}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server wants its requests.

    schema_field: the field that carries a schema, once a probe has shown that it is enforced.
    completion_budget: whether the answer's bound is `max_completion_tokens`, not `max_tokens`.
    left_out: sampling parameters that are not sent.
    folds_system: whether the instructions stand in the first user turn, for a chat template
        without a system role.
    """

    schema_field: SchemaField | None = None
    completion_budget: bool = False
    left_out: frozenset[str] = frozenset()
    folds_system: bool = False

    def fitted(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body of a request in this dialect."""
        fitted = {k: v for k, v in body.items() if k not in self.left_out}
        if self.completion_budget:
            fitted["max_completion_tokens"] = fitted.pop("max_tokens")
        if self.folds_system:
            turns = [Message(**turn) for turn in body["messages"]]
            fitted["messages"] = [turn._asdict() for turn in without_system_role(turns)]
        return fitted

    def after(
        self, error: ErrorResponse, body: dict[str, Any], sampling: Sampling
    ) -> Dialect | None:
        """The dialect that avoids what an error refuses; None if it refuses no part of a request.

        Args:
            error: the server's response.
            body: what was sent, in this dialect.
            sampling: the run's; says whether a refused parameter decides the answers.

        Raises:
            EngineError: if leaving the parameter out would change answers.
        """
        if error.status not in _REFUSAL_STATUSES or error.reason == "prompt_too_long":
            return None
        if _NO_SYSTEM_ROLE.search(error.message):
            has_system = any(turn["role"] == "system" for turn in body["messages"])
            return replace(self, folds_system=True) if has_system else None
        name = _refused_parameter(error)
        if name is None or name not in body:
            return None
        if name == "max_tokens":
            return replace(self, completion_budget=True)
        if _decides_answers(name, sampling):
            raise EngineError(
                f"The model server refuses `{name}` ({error.message}): "
                f"{_instead(name)}, which becomes part of what identifies the answers."
            )
        return replace(self, left_out=self.left_out | {name})


def without_system_role(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation with its instructions at the head of the first user turn."""
    instructions = [turn.content for turn in messages if turn.role == "system"]
    turns = [turn for turn in messages if turn.role != "system"]
    if not instructions or not turns:
        return tuple(messages)
    head = Message(turns[0].role, "\n\n".join([*instructions, turns[0].content]))
    return (head, *turns[1:])


def _refused_parameter(error: ErrorResponse) -> str | None:
    if not _REFUSED.search(error.message):
        return None
    if error.parameter in _PARAMETERS:
        return error.parameter
    named = [n for n in _PARAMETERS if re.search(rf"(?<![a-z_]){n}(?![a-z_])", error.message)]
    return named[0] if named else None


def _decides_answers(name: str, sampling: Sampling) -> bool:
    if name == "seed":
        return sampling.temperature != 0  # nothing is drawn at temperature 0
    if name == "top_p":
        return sampling.top_p != 1 and sampling.temperature != 0
    return True


def _instead(name: str) -> str:
    if name == "chat_template_kwargs":
        return "leave `chat_template_kwargs` out of the configuration"
    return f"set `{name}: null` to leave it to the server"
