"""Why the atlas gives no box. Raised anywhere in this package, answered in `engine` alone."""

from __future__ import annotations


class CannotPlaceError(Exception):
    """A target that gets no box: a reason code (see `Ungrounded`) and a sentence for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class NoLungFieldsError(CannotPlaceError):
    """No pair of lung fields was found, so no target of the image gets a box."""

    def __init__(self, detail: str) -> None:
        super().__init__("registration_failed", detail)
