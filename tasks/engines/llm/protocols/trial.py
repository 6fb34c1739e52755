"""Whether a model is of any use for a step: judged by its first answers.

A model that passes the capability check may still answer every sentence with prose. The embedded
steps would then do all of its work, or every report would be rejected, and the run would seem to
have gone well. So the run ends where nearly none of a step's first answers can be read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from storage.reasons import may_succeed_later
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest, Completion, EngineError
from tasks.engines.llm.chat.outage import without_report
from tasks.engines.protocols import Failure

FEWEST_UNITS = 16
"""Sentences or texts, those of one full request: a model that answers none of so many, each asked
about three times, was not just unlucky with one report."""

LEAST_SHARE = 0.05
"""Usable answers of all. A small real model (135 million parameters) answers more than half; one
that leaves this much to the rules adds nothing to them."""

_UNREADABLE = {"answer_malformed", "refused", "request_refused", "bad_answer"}
"""Failures that no answer came of. One that was read and found to change the meaning shows that the
model does its task, well or not."""

_LONGEST_QUOTE = 200
"""Characters of an answer that are shown to a person."""


class ModelTrial:
    """The outcomes of one step's units in this process; any number of threads may note theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usable = 0
        self._unreadable = 0
        self._last: Failure | None = None

    def note(self, answers: Iterable[Any | Failure]) -> None:
        """Count outcomes; those that a later run may change are left out."""
        with self._lock:
            for answer in answers:
                if not isinstance(answer, Failure) or answer.reason not in _UNREADABLE:
                    is_open = isinstance(answer, Failure) and may_succeed_later(answer.reason)
                    self._usable += not is_open
                else:
                    self._unreadable += 1
                    self._last = answer

    def judge(self, chat: ChatEngine, request: ChatRequest) -> None:
        """Return if the model is of use as far as can be told.

        Args:
            chat: the model; asked once more, without a report, so that its words can be shown.
            request: one like those that it failed at.

        Raises:
            EngineError: if nearly none of its answers can be used.
        """
        with self._lock:
            judged, unreadable, last = self._usable + self._unreadable, self._unreadable, self._last
        if judged < FEWEST_UNITS or judged - unreadable > LEAST_SHARE * judged or last is None:
            return
        raise EngineError(
            f"The model answers, but {unreadable:,} of the first {judged:,} sentences or texts got "
            f"no answer that can be used ({last.reason}). {_its_words(chat, request)}Set `model` "
            "to one that follows instructions and serve it with its own chat template; for one "
            "that reasons first, set `thinking_tokens` or switch that off with "
            "`chat_template_kwargs`; another `protocol` may suit it; or leave the language model "
            "out. What was answered so far is kept."
        )


def _its_words(chat: ChatEngine, request: ChatRequest) -> str:
    """What the model says when it is asked without a report, which must not be in a message."""
    (said,) = chat.complete([without_report(request)])
    if isinstance(said, Failure):
        is_known = not may_succeed_later(said.reason)  # a batch file has no answer to this
        fails = f"Asked without a report, it fails too: {said.detail.rstrip('.')}. "
        return fails if is_known else ""
    words = " ".join(said.text.split())[:_LONGEST_QUOTE]
    cut = ", cut off at the allowed length" if _was_cut(said) else ""
    return f"Asked without a report, it writes {words!r}{cut}. "


def _was_cut(said: Completion) -> bool:
    return said.finish_reason == "length"
