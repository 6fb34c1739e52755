"""Whether a report is plain text, or what word processors and hospital systems make of one."""

from __future__ import annotations

import codecs
import re

_FORMS = {
    r"\{\\rtf": "RTF",
    r"%PDF-": "a PDF",
    r"PK\x03\x04": "a Word file, or another that is zipped",
    r"\xd0\xcf\x11\xe0": "an old Word file",
    r"<\?xml": "XML",
    r"<(?:!doctype|html|head|body|div|span|font|table|p|br|pre)\b": "HTML",
    r"(?:\x0b)?MSH\|": "an HL7 message",
}
"""What a report begins with that is not plain text."""

_FORM = re.compile(
    r"\s*(?:" + "|".join(f"({form})" for form in _FORMS) + ")", re.IGNORECASE | re.ASCII
)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def form_of(text: str) -> str | None:
    """What a text is, if it is no plain text: RTF, HTML, …; bytes are given as Latin-1."""
    found = _FORM.match(text)
    return list(_FORMS.values())[found.lastindex - 1] if found and found.lastindex else None


def decode(data: bytes, encoding: str) -> str:
    """The text of a report's file: UTF-8, UTF-16 with its mark, or in the given encoding.

    Raises:
        UnicodeDecodeError: if it is none of them.
    """
    if data.startswith(_UTF16):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode(encoding)
