"""Tasks in words."""

import pytest

from model.inference.errors import InferenceError
from model.inference.prompts import ask


def test_each_task_has_its_words_and_points_or_not() -> None:
    assert ask("report").grounded
    assert ask("detect").grounded
    assert not ask("vqa", "Is the heart large?").grounded
    assert ask("vqa", " Is the heart large? ").query == "Is the heart large?"
    assert ask("vqa", "Where is the heart?", grounded=True).grounded
    assert not ask("report", grounded=False).grounded


def test_detect_names_the_targets_and_takes_them_literally() -> None:
    query = ask("detect", "lung nodule,  heart , {targets}").query
    assert "lung nodule, heart, {targets}." in query
    assert "{" not in ask("detect").query


def test_a_task_without_what_it_needs_is_refused() -> None:
    with pytest.raises(InferenceError, match="needs a question"):
        ask("vqa")
    for task in ("report", "detect", "vqa"):
        with pytest.raises(InferenceError, match="is empty"):
            ask(task, " , ")
