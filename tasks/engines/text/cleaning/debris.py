"""What de-identification leaves, read once as one word, before any rule looks at the text."""

from __future__ import annotations

import re

from tasks.engines.text.normalization import Rewritten, rewrite

LOST = "XXXX"
"""The placeholder of one lost word or of several in a row. Rules drop it with what it made
meaningless; where no sentence would be left, or another one, it stays in the cleaned text."""

_SIGNS = ("XXX", "xxx", "__", "[**", "[REDACTED", "<REDACTED")
# A stretch that is taken is never given back, and a bracket is followed for 120 characters: the
# time grows with the text and no faster.
_ONE = (
    r"(?:(?<![^\W_])(?=[^\W_]*?X{3}|x{4})[^\W_]++(?:'s\b)?"
    r"|(?<!_)_{2,}+(?:\d++(?!\w))?|\[\*\*[^\]\n]{0,120}?\*\*\]|[\[<]REDACTED[\]>])"
)
_DEBRIS = re.compile(
    rf"(?P<rule>(?<!_)_{{10,}}+|^[^\S\n]*+_{{5,}}+[^\S\n]*+$)|{_ONE}(?:[ /-]{{1,3}}+{_ONE})*+",
    re.MULTILINE,
)
# The commonest debris, words that begin with capital X, found without a look at every letter.
_PLAIN = re.compile(r"XXX[^\W_]*+(?:'s\b)?(?:[ /-]{1,3}+XXX[^\W_]*+(?:'s\b)?)*+")
_GLUED = re.compile(r"XXX(?<=[^\W_X]XXX)")


def without_debris(text: str) -> Rewritten:
    """The text with `LOST` for every run of lost words; separator lines stay."""
    signs = [sign for sign in _SIGNS if sign in text]
    if not signs:
        return Rewritten(text)
    is_plain = signs == [_SIGNS[0]] and not _GLUED.search(text)
    return rewrite(text, _PLAIN if is_plain else _DEBRIS, _placeholder)


def _placeholder(match: re.Match[str]) -> str:
    if match.lastgroup == "rule":
        return match[0]
    following = match.string[match.end() : match.end() + 1]
    return LOST + (" " if following.isalnum() else "")
