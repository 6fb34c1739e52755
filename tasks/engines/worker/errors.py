"""What may go wrong with a worker, for those who ask it."""

from __future__ import annotations


class WorkerError(Exception):
    """A worker that cannot be used, which ends the run; the message says what to do."""


class WorkerLostError(Exception):
    """The worker's process ended, or had to be ended, before it answered.

    reason: a code of `storage/reasons.yaml`; detail: one sentence, with the path of the log.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class WorkerRefusedError(Exception):
    """The worker answered that it failed at the request; it can take the next one."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
