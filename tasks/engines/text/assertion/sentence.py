"""What one sentence says of its findings, and of those of the sentence before it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple, get_args

from storage.records import Assertion
from tasks.engines.text.assertion.cues import Cues
from tasks.engines.text.assertion.pronouns import Kind, find_pronouns
from tasks.engines.text.assertion.scope import Clauses, Mention
from tasks.engines.text.assertion.statements import Statements
from taxonomy.words import tokenize

_RANK = {assertion: i for i, assertion in enumerate(get_args(Assertion))}
_MANY = 8
"""Findings, at most, that a plural pronoun stands for."""
_HEAD = 80
"""Characters at the head of a sentence in which a pronoun that refers back is looked for."""


class Span(NamedTuple):
    """A phrase in its sentence, code points, half-open, and whether it is anatomy."""

    start: int
    end: int
    is_anatomy: bool


class FollowUp(NamedTuple):
    """What a sentence says of a finding of the sentence before it."""

    pronoun: Kind
    assertion: Assertion


class Judgement(NamedTuple):
    """An assertion for each phrase of the sentence, and what it says of the sentence before."""

    assertions: tuple[Assertion, ...]
    follow_up: FollowUp | None


def weaker(one: Assertion, other: Assertion) -> Assertion:
    """The assertion that claims less."""
    return max(one, other, key=_RANK.__getitem__)


def refers_back(sentence: str, vocabulary: Cues) -> bool:
    """Whether the head of a sentence has a word that may take up the sentence before it."""
    return vocabulary.referring.search(sentence, 0, _HEAD) is not None


def judge_sentence(sentence: str, spans: Sequence[Span], vocabulary: Cues) -> Judgement:
    """Judge the phrases of a sentence, which are in order."""
    tokens = tokenize(sentence.replace("’", "'"))
    phrases = [
        Mention(bisect_right(tokens.ends, start), bisect_left(tokens.starts, end), is_anatomy)
        for start, end, is_anatomy in spans
    ]
    words = [form.word for form in tokens.forms]
    taken = {i for m in phrases for i in range(m.first, m.after)}
    pronouns = [p for p in find_pronouns(words, vocabulary) if p.mention.first not in taken]
    mentions = sorted([*phrases, *(p.mention for p in pronouns)], key=lambda m: m.first)
    clauses = Clauses(sentence, tokens, mentions, vocabulary)
    if not clauses.cues:
        stated: list[Assertion] = ["present"] * len(phrases)
        return Judgement(tuple(stated), None)
    statements = Statements(clauses, mentions, vocabulary)
    verdicts = {id(m): a for m, a in zip(mentions, statements.assertions(), strict=True)}
    assertions = [verdicts[id(phrase)] for phrase in phrases]
    findings = [i for i, phrase in enumerate(phrases) if not phrase.is_anatomy]
    ends = [phrases[i].after for i in findings]
    follow_up = None
    for pronoun in pronouns:
        verdict = verdicts[id(pronoun.mention)]
        before = bisect_right(ends, pronoun.mention.first)
        if verdict == "present":
            continue
        if before:
            meant = findings[max(before - _MANY, 0) : before]
            _take_up(pronoun.kind, verdict, meant, assertions)
        elif follow_up is None:
            follow_up = FollowUp(pronoun.kind, verdict)
    if follow_up is None and not findings:
        follow_up = _without_subject(clauses, vocabulary)
    return Judgement(tuple(assertions), follow_up)


def _take_up(
    kind: Kind, verdict: Assertion, before: Sequence[int], assertions: list[Assertion]
) -> None:
    """Say of the findings before a pronoun what is said of it."""
    nearest = before[-1]
    if kind == "one":
        # Another one that may be there takes back a denial, and is no news beside a finding.
        if verdict != "absent" and assertions[nearest] != "present":
            assertions[nearest] = verdict
        return
    for i in before if kind == "plural" else [nearest]:
        assertions[i] = weaker(assertions[i], verdict)


def _without_subject(clauses: Clauses, vocabulary: Cues) -> FollowUp | None:
    """What a sentence without a subject says: "No longer seen.", "Today there is none."."""
    for found in clauses.cues:
        for cue in found.cues:
            if (
                cue.meaning == "absent"
                and cue.about == "abnormality"
                and cue.finding == "before"
                and vocabulary.openers.issuperset(clauses.words[: found.first])
                and clauses.ends_clause(found.after)
            ):
                return FollowUp("plural", "absent")
    return None
