"""Prompts: Markdown files that a reviewer can read, and the conversations built from them.

`<protocol>/<step>.md` holds what is common, `<step>.<set>.md` what a prompt set adds: the set of
the data set's own name, or the one that its declaration names. Rules come first, then examples:
`## Example` with two fenced blocks, what is given and the expected answer. A first block `---` may
list words (`only_if`): a text without any of them needs no request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tasks.engines.llm.chat.engine import ChatEngine, Message
from tasks.engines.llm.digest import digest
from tasks.engines.protocols import Fingerprint

FOLDER = Path(__file__).parent

COMPLAINT = "\n\nYour last answer about this could not be used. Answer again. The fault was: "

_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_EXAMPLE = re.compile(
    r"^## Example.*?\n```\w*\n(.*?)\n```\s*\n```\w*\n(.*?)\n```", re.DOTALL | re.M
)
_FIRST_EXAMPLE = re.compile(r"^## Example", re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->\s*", re.DOTALL)


class Example(NamedTuple):
    """A user message and the expected answer."""

    given: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """Rules, examples, and their digest.

    only_if: lower-case words; a text that contains none of them needs no request.
    template: the rules before their slots were filled.
    """

    rules: str
    examples: tuple[Example, ...]
    only_if: tuple[str, ...] = ()
    template: str = ""

    @property
    def digest(self) -> str:
        """Decided by every word of the prompt's files, but not by what fills its slots."""
        return digest(self.template, self.examples, self.only_if)

    def concerns(self, text: str) -> bool:
        """Whether a request about a text is needed: one of `only_if` is in it, or there is none."""
        lowered = text.lower()
        return not self.only_if or any(word in lowered for word in self.only_if)

    def messages(self, data: str, complaint: str = "") -> tuple[Message, ...]:
        """The conversation that asks about some data.

        A complaint, which may quote the report or the model, is quoted as JSON, as data are.
        """
        note = COMPLAINT + json.dumps(complaint, ensure_ascii=False) if complaint else ""
        turns = [
            message
            for given, answer in self.examples
            for message in (Message("user", given), Message("assistant", answer))
        ]
        return (Message("system", self.rules), *turns, Message("user", data + note))


def prompt_sets() -> list[str]:
    """The prompt sets that there are: names of data sets whose reports have rules of their own."""
    return sorted({path.stem.partition(".")[2] for path in FOLDER.glob("*/*.*.md")})


def load_prompt(
    protocol: str, step: str, prompt_set: str, slots: Mapping[str, str] | None = None
) -> Prompt:
    """The prompt of a step; `{name}` in its rules stands for the slot's text.

    The common prompt alone where the prompt set has nothing for the step, or does not exist.
    """
    parts = [_read(protocol, step), _read(protocol, f"{step}.{prompt_set}")]
    template = "\n\n".join(part.rules for part in parts if part and part.rules)
    rules = template
    for name, value in (slots or {}).items():
        rules = rules.replace("{" + name + "}", value)
    examples = tuple(example for part in parts if part for example in part.examples)
    only_if = tuple(w for part in parts if part for w in part.only_if)
    return Prompt(rules, examples, only_if, template)


def protocol_fingerprint(
    name: str, version: str, prompt: Prompt, chat: ChatEngine, **more: str
) -> Fingerprint:
    """What decides the answers of a step: protocol, prompt, and everything of the chat engine."""
    chat_fingerprint = {f"chat_{key}": value for key, value in chat.fingerprint.items()}
    return {"name": name, "version": version, "prompt": prompt.digest, **more, **chat_fingerprint}


def numbered(payloads: Sequence[Any]) -> str:
    """Payloads as data of a prompt: a JSON object with a line per number, from 1.

    JSON separates data from instructions: a report's text stays inside its quotation marks.
    """
    lines = (
        f"{json.dumps(str(i))}: {json.dumps(payload, ensure_ascii=False)}"
        for i, payload in enumerate(payloads, start=1)
    )
    return "{" + ",\n".join(lines) + "}"


@cache
def _read(protocol: str, name: str) -> Prompt | None:
    path = FOLDER / protocol / f"{name}.md"
    if not path.exists():
        return None
    text = _COMMENT.sub("", path.read_text(encoding="utf-8"))
    front = _FRONT.match(text)
    settings = yaml.safe_load(front[1]) if front else {}
    body = text[front.end() :] if front else text
    first = _FIRST_EXAMPLE.search(body)
    return Prompt(
        rules=(body[: first.start()] if first else body).strip(),
        examples=tuple(Example(*found) for found in _EXAMPLE.findall(body)),
        only_if=tuple(settings.get("only_if", ())),
    )
