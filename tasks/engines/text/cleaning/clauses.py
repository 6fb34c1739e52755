"""Splits a sentence where "and" or "but" joins two statements, each with a subject and a verb.

A rule that drops or rewrites a whole statement needs to see that statement alone: in "the left
effusion has decreased and the right effusion has resolved" only the right one is gone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LONGEST_SUBJECT = 9
"""Words before the verb; a longer subject holds a statement of its own."""

_VERB = (
    r"is|are|has|have|remains?|appears?|persists?|continues?|ends?|terminates?|shows?"
    r"|demonstrates?|projects?|lies|extends?|measures?|cannot|can|may|might|could"
)
_FINITE = re.compile(rf"\b(?:{_VERB})\b", re.IGNORECASE)
# A subject holds none of these, and before "may" there may be a subject that was left out.
_NO_SUBJECT = rf"which|that|who|as|because|for|if|not|no|now|also|still|currently|then|{_VERB}"
_LINKS = rf"{_NO_SUBJECT}|and|or|but|yet|with"
_BOUNDARY = re.compile(
    rf"""
    (?P<link> ,?\ (?:and|but|while|whereas)\ | ,\ (?:al)?though\ |,\ however,\ )
    (?= there\ (?:is|are|has|have|'s)\b
      | (?:(?!(?:{_NO_SUBJECT})\b)[\w/-]++\ ){{1,{_LONGEST_SUBJECT}}}
        (?!(?:can|could|may|might)\b)(?:{_VERB})\b
      | no\ (?:(?!(?:which|that)\b)[\w/-]++,?\ ){{1,{_LONGEST_SUBJECT}}}(?:is|are)\b )
    | (?P<splice> ,\ )
    (?= (?:the|its|their)\ (?:(?!(?:{_LINKS})\b)[\w/-]++\ ){{1,{_LONGEST_SUBJECT}}}
        (?:now\ )?(?!(?:can|could|may|might)\b)(?:{_VERB})\b
      | (?:(?!(?:{_LINKS})\b)[\w/-]++\ ){{1,5}}(?:has|have)\ (?:\w++\ ){{0,2}}?
        (?:increased|decreased|improved|worsened|resolved|cleared|progressed|developed|enlarged)\b
      | (?:(?!(?:{_LINKS})\b)[\w/-]++\ ){{1,5}}(?:is|are)\ (?:\w++\ )?
        (?:unchanged|stable|unaltered|similar|improved|worse|increased|decreased|larger|smaller)\b )
    | (?P<stop> ;\ ) (?= (?:(?!(?:{_LINKS})\b)[\w/-]++\ ){{1,{_LONGEST_SUBJECT}}}
        (?:no\ longer|{_VERB})\b )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# A condition, a reason or a request holds for all that follows it; what was, may go on.
# "Since the prior film" is neither.
_ONE_THOUGHT = re.compile(
    r"\b(?:if|unless|when|because|since(?! (?:the (?:prior|previous|last)|prior|XXXX|yesterday)\b)"
    r"|until|whether|was|were|had|recommend|suggest|advise|consider)\b|\b(?:given|due to) [^,]*$",
    re.IGNORECASE,
)

# What comes before its main clause, or names a time.
_DEPENDENT = re.compile(
    r"(?:even |al)?though|while|whereas|despite|as|in|on|at|compar|given", re.IGNORECASE
)


def split_clauses(sentence: str) -> list[tuple[str, str]]:
    """The statements of a sentence, each with the link before it; the first link is "".

    A sentence that is one statement comes back whole.
    """
    parts: list[tuple[str, str]] = []
    start, link = 0, ""
    for match in _BOUNDARY.finditer(sentence):
        clause = sentence[start : match.start()]
        is_statement = match["stop"] or _FINITE.search(clause)
        if not is_statement or _ONE_THOUGHT.search(clause):
            continue
        if match["splice"] and _DEPENDENT.match(clause):
            continue
        parts.append((link, clause))
        start, link = match.end(), match[0]
    return [*parts, (link, sentence[start:])]


def joined(clauses: Sequence[tuple[str, str, bool]], ending: str) -> str:
    """One text of the statements that are left, each given as link, words, and whether it is whole.

    A statement that has lost its verb stands alone: "Left effusion. No right effusion."
    """
    text = ""
    last_is_whole = True
    for link, words, whole in clauses:
        body = words.rstrip(" .?!")
        if not body:
            continue
        if text and last_is_whole and whole:
            text += link + body
        else:
            text += (f"{ending or '.'} " if text else "") + body[0].upper() + body[1:]
        last_is_whole = whole
    return text + ending if text else ""
