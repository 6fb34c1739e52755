"""Prompts of the tasks: the wording of `prompts.yaml` and the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from model.inference.errors import InferenceError

Task = Literal["report", "detect", "vqa"]

Pointing = Literal["by-category", "masks", "boxes", "both"]
"""How phrases are grounded: by category (anatomy: mask, abnormality: boxes) or all alike."""


@dataclass(frozen=True)
class Question:
    """A task, its prompt, and whether the answer is to be grounded."""

    task: Task
    query: str
    grounded: bool


def ask(task: Task, prompt: str | None = None, *, grounded: bool | None = None) -> Question:
    """Make the prompt of a task.

    Args:
        task: the task.
        prompt: for `report` an instruction in place of the default, for `detect` names of targets
            separated by commas (None: any abnormality), for `vqa` the question.
        grounded: whether the answer is to be grounded; None: the default of the task.

    Raises:
        InferenceError: if the prompt is missing or empty.
    """
    wording = _declared()[task]
    pointing = wording["grounded"] if grounded is None else grounded
    return Question(task, _query(task, wording, prompt), pointing)


def _query(task: Task, wording: dict[str, str], prompt: str | None) -> str:
    if prompt is None:
        if task == "vqa":
            raise InferenceError("the task vqa needs a question: add --prompt 'Is there …?'")
        return wording.get("open_query") or wording["query"]
    names = [name.strip() for name in prompt.split(",") if name.strip()]
    if not names:
        raise InferenceError(f"the prompt of the task {task} is empty: write it, or leave it out")
    if task != "detect":
        return prompt.strip()
    return wording["query"].replace("{targets}", ", ".join(names))


@cache
def _declared() -> dict[str, Any]:
    text = files(__package__).joinpath("prompts.yaml").read_text("utf-8")
    declared: dict[str, Any] = yaml.safe_load(text)
    return declared
