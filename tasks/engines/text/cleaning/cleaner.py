"""The cleaner: sentence by sentence, until nothing more changes.

What is taken out follows the paper's cleaning prompts (VividMed, section on data synthesis):
comparison and interval change, history, technique, notification, advice, de-identification
debris. What is left is the report's own words in their own order, except for "no" (a finding that
has resolved), "is" or "are" (for "remains"), "and" and articles; side, number and negation stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from tasks.engines.protocols import CleanedText, Fingerprint
from tasks.engines.text.cleaning.mending import mended
from tasks.engines.text.cleaning.rules import MARK, SWEEPING_MARK, Rule, Rules, load_rules
from tasks.engines.text.sentences import split_sentences

VERSION = "3"

_LIST_MARKER = re.compile(r"\s*(?:\(?\d{1,2}[.)]|[-*•·–])\s+")
_SPACES = re.compile(r"\s+")


class RulesCleaner:
    """Drops or rewrites what one image cannot show; the same text always gives the same."""

    def __init__(self) -> None:
        self._rules = load_rules()
        self._clean = lru_cache(maxsize=1 << 15)(self._clean_sentence)

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, version and the digest of the rules."""
        return {"name": "rules", "version": VERSION, "rules": self._rules.digest}

    def clean(self, texts: Sequence[str]) -> list[CleanedText]:
        """Clean section texts, order kept; nothing left gives ""."""
        return [self._clean_text(text) for text in texts]

    def _clean_text(self, text: str) -> CleanedText:
        cleaned, removed = self._pass(text)
        before = text
        while cleaned != before:  # a second look sees what the first one joined
            before = cleaned
            cleaned, _ = self._pass(before)
        return CleanedText(cleaned, tuple(removed))

    def _pass(self, text: str) -> tuple[str, list[str]]:
        pieces: list[str] = []
        removed: list[str] = []
        end_of_last = 0
        for start, end in split_sentences(text):
            sentence = _SPACES.sub(" ", text[start:end])
            cleaned = self._clean(sentence)
            if cleaned != sentence:
                removed.append(text[start:end])
            if cleaned:
                gap = "\n" if "\n" in text[end_of_last:start] else " "
                pieces += [gap, cleaned] if pieces else [cleaned]
                end_of_last = end
        return "".join(pieces), removed

    def _clean_sentence(self, sentence: str) -> str:
        marker = _LIST_MARKER.match(sentence)
        head = marker[0] if marker else ""
        body = sentence[len(head) :].replace(MARK, "")
        cleaned = _apply(body, self._rules)
        if not cleaned or cleaned == body:
            return head + cleaned if cleaned else ""
        return self._clean(head + cleaned)


def _apply(sentence: str, rules: Rules) -> str:
    changed = sentence
    lowered = sentence.lower()
    for group in rules.groups:
        if not group.concerns(lowered):
            continue
        for rule in group.rules:
            if rule.action == "drop":
                if _drops(rule, changed):
                    return ""
            else:
                changed = rule.pattern.sub(rule.replacement, changed)
                if SWEEPING_MARK in changed:
                    changed = rules.swept.sub(MARK, _SPACES.sub(" ", changed))
    return sentence if changed == sentence else mended(changed, sentence, rules.neutral)


def _drops(rule: Rule, sentence: str) -> bool:
    if not rule.pattern.search(sentence):
        return False
    return rule.unless is None or not rule.unless.search(sentence)
