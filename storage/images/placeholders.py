"""Files that stand where an image should be: what a failed download or checkout leaves behind.

They carry the image's name, so that a decoder would only say that the bytes are no image.
"""

from __future__ import annotations

import re
from pathlib import Path

from storage.images.decoding import decoding
from storage.images.types import ImageError

_START = 512  # bytes; every form shows itself in its first line

_FORMS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (
        re.compile(rb"version https://git-lfs\.github\.com/spec/"),
        "is a Git LFS pointer, not the file: run `git lfs pull`",
    ),
    (
        re.compile(rb"(\.\./)*(\.git|/)?/?annex/objects/"),
        "is a git-annex pointer, not the file: run `git annex get`",
    ),
    (
        re.compile(rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.I),
        "is a web page (HTML), not an image: the download met a login or an error, download again",
    ),
    (
        re.compile(rb"(<\?xml[^>]*>\s*)?<error>", re.I),
        "is a server's error message (XML), not an image: download again",
    ),
    (
        re.compile(rb"\{\s*\"(error|errors|message|code|detail|status)\"\s*:", re.I),
        "is a server's error message (JSON), not an image: download again",
    ),
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def refuse_placeholder(path: Path) -> None:
    """Look at the start of a file.

    Raises:
        ImageError: `image_unreadable`, if it is a pointer of Git LFS or git-annex, a web page, or
            the error message of a server.
    """
    with decoding(path, "an image"), path.open("rb") as stream:
        start = stream.read(_START).removeprefix(_BYTE_ORDER_MARK).lstrip()
    for form, sentence in _FORMS:
        if form.match(start):
            raise ImageError("image_unreadable", f"{path} {sentence}")
