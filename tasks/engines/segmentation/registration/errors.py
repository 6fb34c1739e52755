"""Why a scan gets no labels from the atlas. Raised in this package, answered in `engine` alone."""

from __future__ import annotations


class CannotRegisterError(Exception):
    """A scan that the atlas does not fit: a reason code (see `Ungrounded`) and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
